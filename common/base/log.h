// Structured logs: one line per event on standard error, as text or JSON, with fields.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/error.h"

namespace sextant {

enum class LogFormat { kText, kJson };
enum class LogLevel { kDebug, kInfo, kWarning, kError };

// A named value of a log line; numbers and strings convert by themselves.
struct LogField {
  LogField(absl::string_view name, absl::string_view value) : name(name), value(value) {}
  LogField(absl::string_view name, const std::string& value) : name(name), value(value) {}
  LogField(absl::string_view name, const char* value) : name(name), value(value) {}
  LogField(absl::string_view name, const absl::Status& value) : name(name), value(ErrorText(value)) {}
  template <typename Number>
  LogField(absl::string_view name, Number value) : name(name), value(absl::StrCat(value)), is_number(true) {}
  std::string name;
  std::string value;
  bool is_number = false;
};

// Sets what every line carries. Called once, by main, before threads start.
void InitLogging(absl::string_view service, LogFormat format, LogLevel least);

// Writes one line. Threads: any.
void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {});

inline void LogInfo(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, message, fields);
}

}  // namespace sextant
