// Writes a run's table and JSON.
#include "loadtest/sextant_load/report.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace sextant::load {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kPercents[] = {25, 50, 75, 90, 95, 99, 99.9};

double Milliseconds(absl::Duration value) { return absl::ToDoubleMilliseconds(value); }

double PerSecond(int64_t count, const Figures& figures) {
  return static_cast<double>(count) / absl::ToDoubleSeconds(figures.window());
}

std::string PercentileText(const Histogram& histogram, double percent) {
  const auto value = histogram.Percentile(percent);
  return value.has_value() ? absl::StrFormat("%.1f", Milliseconds(*value)) : "-";
}

void AddRow(std::string* table, absl::string_view name, const Histogram& h) {
  if (h.count() == 0) return;
  absl::StrAppendFormat(table, "  %-30s%10d%10.1f%10.1f%10s%10s%10s%10.1f\n", name, h.count(),
                        Milliseconds(h.mean()), Milliseconds(h.least()), PercentileText(h, 50),
                        PercentileText(h, 90), PercentileText(h, 99), Milliseconds(h.most()));
}

Json PercentileJson(const Histogram& histogram, double percent, double unit_ns) {
  const auto value = histogram.Percentile(percent);
  if (!value.has_value()) return nullptr;
  return absl::ToDoubleNanoseconds(*value) / unit_ns;
}

// As genai-perf writes a metric.
Json MetricJson(const Histogram& h) {
  Json json = {{"unit", "ms"}, {"count", h.count()}, {"avg", Milliseconds(h.mean())}};
  for (const double percent : kPercents) {
    json[absl::StrCat("p", percent)] = PercentileJson(h, percent, 1e6);
  }
  json["min"] = Milliseconds(h.least());
  json["max"] = Milliseconds(h.most());
  json["std"] = Milliseconds(h.deviation());
  return json;
}

Json RateJson(const char* unit, double rate) { return {{"unit", unit}, {"avg", rate}}; }

Json GhzJson(const RunReport& r) {
  const Figures& f = r.figures;
  Json latency = Json::array();
  for (const double percent : kPercents) {
    latency.push_back({{"percentage", percent}, {"latency", PercentileJson(f.request, percent, 1)}});
  }
  Json histogram = Json::array();
  for (const Histogram::Bucket& bucket : f.request.Buckets()) {
    histogram.push_back({{"mark", static_cast<double>(bucket.upper_ns) * 1e-9},
                         {"count", bucket.count},
                         {"frequency", static_cast<double>(bucket.count) / f.request.count()}});
  }
  return {{"name", r.scenario_name},
          {"options",
           {{"call", "sextant.v1.InferenceService/Generate"},
            {"host", r.target},
            {"rps", r.scenario.rate},
            {"duration_s", absl::ToDoubleSeconds(f.window() + r.scenario.warmup)},
            {"warmup_s", absl::ToDoubleSeconds(r.scenario.warmup)},
            {"arrivals", r.scenario.arrivals == Arrivals::kFixed ? "fixed" : "poisson"},
            {"seed", r.scenario.seed},
            {"retries", r.scenario.retries}}},
          {"count", f.ended},
          {"total", absl::ToInt64Nanoseconds(f.window())},
          {"rps", PerSecond(f.completed, f)},
          {"average", absl::ToInt64Nanoseconds(f.request.mean())},
          {"fastest", absl::ToInt64Nanoseconds(f.request.least())},
          {"slowest", absl::ToInt64Nanoseconds(f.request.most())},
          {"statusCodeDistribution", f.codes},
          {"errorDistribution", f.errors},
          {"latencyDistribution", std::move(latency)},
          {"histogram", std::move(histogram)}};
}

Json GenaiJson(const RunReport& r) {
  const Figures& f = r.figures;
  return {{"request_throughput", RateJson("requests/sec", PerSecond(f.completed, f))},
          {"request_goodput", RateJson("requests/sec", PerSecond(f.good, f))},
          {"request_count", {{"unit", "requests"}, {"avg", f.completed}}},
          {"output_token_throughput", RateJson("tokens/sec", PerSecond(f.tokens, f))},
          {"time_to_first_token", MetricJson(f.first_token)},
          {"time_to_second_token", MetricJson(f.second_token)},
          {"inter_token_latency", MetricJson(f.inter_token)},
          {"request_latency", MetricJson(f.request)}};
}

Json VerdictJson(const Verdict& v) {
  return {{"good", v.good()},         {"planned", v.planned},
          {"attempts", v.attempts},   {"completed", v.completed},
          {"refused", v.refused},     {"unserved", v.unserved},
          {"tokens", v.tokens},       {"readings", v.readings},
          {"kept_rows", v.kept_rows}, {"break_count", v.break_count},
          {"breaks", v.breaks}};
}

}  // namespace

std::string ReportTable(const RunReport& r) {
  const Figures& f = r.figures;
  std::string table = absl::StrFormat(
      "%s: %s arrivals, %.2f requests/s meant for %.0f s (the first %.0f s not counted), seed %d, model %s\n",
      r.scenario_name, r.scenario.arrivals == Arrivals::kFixed ? "fixed" : "poisson", r.scenario.rate,
      absl::ToDoubleSeconds(f.window() + r.scenario.warmup), absl::ToDoubleSeconds(r.scenario.warmup),
      r.scenario.seed, r.model.name());
  absl::StrAppendFormat(&table, "  requests %d, answered %d (%.2f/s), goodput %.2f/s, output %.1f tokens/s\n",
                        f.ended, f.completed, PerSecond(f.completed, f), PerSecond(f.good, f),
                        PerSecond(f.tokens, f));
  absl::StrAppendFormat(&table, "  %-30s%10s%10s%10s%10s%10s%10s%10s\n", "ms", "count", "mean", "min", "p50",
                        "p90", "p99", "max");
  AddRow(&table, "time to first token", f.first_token);
  AddRow(&table, "inter-token latency", f.inter_token);
  AddRow(&table, "request latency", f.request);
  AddRow(&table, "refusal (seen by the client)", f.refusal);
  AddRow(&table, "generator late by", f.lag);
  for (const auto& [error, count] : f.errors) absl::StrAppendFormat(&table, "  %-30s%10d\n", error, count);
  return table;
}

std::string ReportJson(const RunReport& r) {
  const Figures& f = r.figures;
  const Json json = {
      {"scenario", r.scenario_name}, {"model", r.model.name()},          {"ghz", GhzJson(r)},
      {"genai_perf", GenaiJson(r)},  {"refusal", MetricJson(f.refusal)}, {"generator_lag", MetricJson(f.lag)},
      {"attempts", f.attempts},      {"ledger", VerdictJson(r.verdict)}};
  return absl::StrCat(json.dump(1), "\n");
}

std::string VerdictText(const Verdict& v) {
  std::string text = absl::StrFormat(
      "ledger %s: %d requests planned, %d answered in whole, %d refused, %d unserved, in %d attempts; "
      "%d tokens, %d readings, %d kept rows\n",
      v.good() ? "good" : "BROKEN", v.planned, v.completed, v.refused, v.unserved, v.attempts, v.tokens,
      v.readings, v.kept_rows);
  for (const std::string& line : v.breaks) absl::StrAppend(&text, "  ", line, "\n");
  if (v.break_count > static_cast<int64_t>(v.breaks.size())) {
    absl::StrAppendFormat(&text, "  and %d more\n", v.break_count - static_cast<int64_t>(v.breaks.size()));
  }
  return text;
}

}  // namespace sextant::load
