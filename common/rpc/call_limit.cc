// A time limit on a call.
#include "common/rpc/call_limit.h"

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace sextant {

struct CallLimit::State {
  absl::Mutex mutex;
  grpc::ServerContextBase* context ABSL_GUARDED_BY(mutex);  // null once the call has ended
};

CallLimit::CallLimit(grpc::ServerContextBase& context, absl::Duration limit)
    : state_(std::make_shared<State>()) {
  {
    absl::MutexLock lock(&state_->mutex);
    state_->context = &context;
  }
  alarm_.Set(absl::ToChronoTime(absl::Now() + limit), [state = state_](bool reached) {
    absl::MutexLock lock(&state->mutex);
    if (reached && state->context != nullptr) state->context->TryCancel();
  });
}

CallLimit::~CallLimit() {
  absl::MutexLock lock(&state_->mutex);
  state_->context = nullptr;
}

}  // namespace sextant
