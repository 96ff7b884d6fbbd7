// What a .cu file sees as CUDA when the host's compiler builds it: the host interface and the device
// language.
#pragma once

#include "cuda_runtime_api.h"
#include "kernels/cuda/emulation/device_language.h"
