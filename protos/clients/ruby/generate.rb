# Generates the Ruby stubs of sextant.v1 with Debian's ruby-grpc-tools: ruby generate.rb OUTPUT_FOLDER
require "fileutils"

protos = File.expand_path("../..", __dir__)
out = File.expand_path(ARGV.fetch(0) { abort "usage: ruby generate.rb OUTPUT_FOLDER" })
on_path = ->(name) { ENV["PATH"].split(":").map { |folder| File.join(folder, name) }.find { |f| File.executable?(f) } }
protoc = on_path["grpc_tools_ruby_protoc"] || on_path["protoc"]
abort "no protoc: apt-get install ruby-grpc-tools" unless protoc

FileUtils.mkdir_p(out)
files = %w[types inference capture vector].map { |name| "sextant/v1/#{name}.proto" } + ["google/rpc/error_details.proto"]
flags = ["-I#{protos}", "--ruby_out=#{out}", "--grpc_out=#{out}"]
plugin = on_path["grpc_ruby_plugin"]
flags << "--plugin=protoc-gen-grpc=#{plugin}" if plugin
system(protoc, *flags, *files) or abort "#{protoc} failed"
