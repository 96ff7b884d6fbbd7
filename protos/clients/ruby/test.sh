#!/usr/bin/env bash
# Runs the Ruby program against a gateway: test.sh HOST:PORT. Needs ruby, ruby-grpc and ruby-grpc-tools.
# Exit codes: 0 passed, 1 failed, 77 skipped (Ruby's gRPC is not installed; says so).
set -euo pipefail

address=${1:?usage: test.sh HOST:PORT}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! ruby -e 'require "grpc"' 2> /dev/null || ! command -v grpc_tools_ruby_protoc > /dev/null; then
  echo "skipped: Ruby's gRPC is missing; apt-get install ruby-grpc ruby-grpc-tools"
  exit 77
fi
stubs=$(mktemp -d)
trap 'rm -rf "$stubs"' EXIT
ruby "$here/generate.rb" "$stubs"

ruby -I "$stubs" "$here/sextant_readings.rb" "$address" "Once upon a time, in a village by the sea," 8

# A refusal must arrive as a typed error with its reason, and fail the program.
if said=$(ruby -I "$stubs" "$here/sextant_readings.rb" "$address" "" 1 2>&1); then
  echo "failed: an empty prompt was accepted"
  exit 1
fi
if [[ $said != *"PROMPT_EMPTY"* ]]; then
  echo "failed: the reason of the refusal was lost: $said"
  exit 1
fi
echo "passed: Ruby client against $address"
