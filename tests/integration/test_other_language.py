"""A Ruby client built from the public protos alone."""

import pathlib
import shutil
import subprocess

import pytest
from suite import ROOT


def test_ruby_client_generates_and_prints_readings(llama, tmp_path) -> None:
    if shutil.which("ruby") is None or shutil.which("grpc_tools_ruby_protoc") is None:
        pytest.skip("ruby, ruby-grpc or ruby-grpc-tools is not installed")
    folder: pathlib.Path = ROOT / "protos/clients/ruby"
    subprocess.run(["ruby", folder / "generate.rb", tmp_path], check=True, timeout=60)
    ended = subprocess.run(["ruby", "-I", tmp_path, folder / "sextant_readings.rb", llama.address, "The old navigator"],
                           capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "layer" in ended.stdout and len(ended.stdout.splitlines()) > 5, ended.stdout
