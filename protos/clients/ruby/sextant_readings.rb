# Generates with a lens and prints each token and, for each position, what the layers would have said.
#
#   ruby -I STUBS sextant_readings.rb HOST:PORT [PROMPT [MAX_NEW_TOKENS]]
#
# Exit codes: 0 everything came and agrees with itself; 1 the call failed; 2 wrong arguments; 3 something is missing.
require "grpc"
require "google/rpc/error_details_pb"
require "sextant/v1/inference_services_pb"

# One call's answer, gathered event by event.
class Transcript
  attr_reader :prompt, :tokens, :tops, :finished

  def initialize
    @prompt, @tokens, @tops, @finished = [], [], {}, nil
  end

  def apply(event)
    case event.event
    when :started then @prompt = event.started.prompt_token_ids.to_a
    when :token then @tokens << event.token
    when :readings then unpack(event.readings)
    when :warning then warn "warning #{event.warning.reason}: #{event.warning.message}"
    when :finished then @finished = event.finished
    end
  end

  # Tokens are inputs but for the last one sampled, which nothing follows.
  def position_count
    @prompt.size + [@tokens.size - 1, 0].max
  end

  private

  # Arrays are little-endian and position-major: top_ids is int32 [position, row, candidate].
  def unpack(readings)
    k, rows = readings.top_k, readings.sites.size
    ids = readings.top_ids.unpack("l<*")
    logprobs = readings.top_logprobs.unpack("e*")
    entropy = readings.entropy_nats.unpack("e*")
    expected = readings.positions.size * rows
    unless ids.size == expected * k && logprobs.size == ids.size && entropy.size == expected
      abort "readings contradict themselves: #{ids.size} ids for #{expected} rows of #{k}"
    end
    readings.positions.each_with_index do |position, p|
      abort "position #{position} came twice" if @tops.key?(position)
      @tops[position] = (0...rows).map do |row|
        at = p * rows + row
        { site: readings.sites[row], layer: readings.layers[row], entropy: entropy[at],
          ids: ids[at * k, k], logprobs: logprobs[at * k, k] }
      end
    end
  end
end

# "INVALID_ARGUMENT / PROMPT_EMPTY: ..." of a failed call; the reason travels in google.rpc.ErrorInfo.
def explain(error)
  data = error.metadata["grpc-status-details-bin"]
  return "#{error.class.name.split("::").last}: #{error.details}" unless data
  status = Google::Rpc::Status.decode(data)
  info = status.details.find { |any| any.type_url.end_with?("/google.rpc.ErrorInfo") }
  reason = info ? Google::Rpc::ErrorInfo.decode(info.value).reason : "?"
  "#{error.class.name.split("::").last} / #{reason}: #{error.details}"
end

abort_usage = -> { warn "usage: ruby -I STUBS sextant_readings.rb HOST:PORT [PROMPT [MAX_NEW_TOKENS]]"; exit 2 }
address, prompt, count = ARGV
abort_usage.call unless address
stub = Sextant::V1::InferenceService::Stub.new(address, :this_channel_is_insecure)
request = Sextant::V1::GenerateRequest.new(
  text: prompt || "Once upon a time", max_new_tokens: (count || 8).to_i,
  lens: Sextant::V1::LensSettings.new(sites: [:SITE_RESID_POST], top_k: 3)
)

transcript = Transcript.new
begin
  stub.generate(request, deadline: Time.now + 120).each { |event| transcript.apply(event) }
  ids = transcript.tops.values.flatten.flat_map { |row| row[:ids] }.uniq
  asked = Sextant::V1::DetokenizeRequest.new(ids: ids, individually: true)
  texts = ids.zip(stub.detokenize(asked, deadline: Time.now + 30).texts.to_a).to_h
rescue GRPC::BadStatus => error
  warn explain(error)
  exit 1
end

puts "tokens: #{transcript.tokens.map(&:text).inspect}"
transcript.tops.sort.each do |position, rows|
  shown = rows.values_at(0, rows.size / 2, -1).map do |row|
    format("layer %2d %-12s %5.1f %%  %5.2f nats", row[:layer], texts[row[:ids][0]].inspect,
           100 * Math.exp(row[:logprobs][0]), row[:entropy])
  end
  puts format("position %3d  ", position) + shown.join("  |  ")
end

missing = (0...transcript.position_count).to_a - transcript.tops.keys
problems = []
problems << "no finished event" unless transcript.finished
problems << "no readings of positions #{missing.join(", ")}" unless missing.empty?
unsorted = transcript.tops.values.flatten.any? { |row| row[:logprobs].each_cons(2).any? { |a, b| a < b } }
problems << "candidates are not best first" if unsorted
# Greedily, the next token is the last layer's first candidate.
transcript.tokens.each_with_index do |token, index|
  rows = transcript.tops[transcript.prompt.size - 1 + index] or next
  best = rows.max_by { |row| row[:layer] }
  problems << "token #{index} is not the last layer's first candidate" unless best[:ids][0] == token.id
end
problems.each { |problem| warn problem }
exit problems.empty? ? 0 : 3
