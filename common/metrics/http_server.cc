// The small HTTP server beside each service, on civetweb's C interface (its C++ one throws).
#include "common/metrics/http_server.h"

#include <arpa/inet.h>
#include <civetweb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iterator>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/error.h"
#include "common/base/listen_error.h"
#include "prometheus/text_serializer.h"

namespace sextant {
namespace {

int Answer(mg_connection* connection, bool with_body, int code, const char* type, const std::string& body) {
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
            "Connection: close\r\n\r\n",
            code, mg_get_response_code_text(connection, code), type, body.size());
  if (with_body) mg_write(connection, body.data(), body.size());
  return code;
}

// civetweb would print to a log file of its own.
int IgnoreMessage(const mg_connection*, const char*) { return 1; }

// Connects to a port of this machine and hangs up, without waiting.
void Touch(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // Its only purpose is to wake the listener; a failure means a slower stop.
  (void)connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  close(fd);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, int port,
                                                              std::shared_ptr<prometheus::Registry> registry,
                                                              ReadyCheck ready) {
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(registry), std::move(ready)));
  const std::string address = ListenAddress(host, port);
  const char* options[] = {"listening_ports", address.c_str(),
                           // A client that says nothing holds one of them until the timeout; probes must
                           // find another.
                           "num_threads", "8", "request_timeout_ms", "5000", "max_request_size", "8192",
                           "enable_keep_alive", "no", "enable_directory_listing", "no", nullptr};
  mg_callbacks callbacks = {};
  callbacks.log_message = IgnoreMessage;
  mg_init_data init = {&callbacks, server.get(), options};
  unsigned code = 0;
  char text[256] = "";
  mg_error_data error = {&code, text, sizeof text};
  server->context_ = mg_start2(&init, &error);
  mg_server_port bound = {};
  if (server->context_ == nullptr || mg_get_server_ports(server->context_, 1, &bound) < 1) {
    return ExplainListenFailure(host, port);
  }
  server->port_ = bound.port;
  mg_set_request_handler(server->context_, "/", &HttpServer::Handle, server.get());
  return server;
}

HttpServer::HttpServer(std::shared_ptr<prometheus::Registry> registry, ReadyCheck ready)
    : registry_(std::move(registry)), ready_(std::move(ready)) {}

HttpServer::~HttpServer() {
  if (context_ == nullptr) return;
  absl::Notification stopped;
  std::thread stopper([this, &stopped] {
    mg_stop(context_);
    stopped.Notify();
  });
  // civetweb looks at its stop flag every two seconds or when a connection comes.
  while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(5))) Touch(port_);
  stopper.join();
}

int HttpServer::Handle(mg_connection* connection, void* self) {
  HttpServer& server = *static_cast<HttpServer*>(self);
  const mg_request_info& request = *mg_get_request_info(connection);
  const std::string method = request.request_method;
  const std::string path = request.local_uri;
  const bool get = method == "GET";
  if (!get && method != "HEAD") return Answer(connection, true, 405, "text/plain", "use GET\n");
  if (path == "/metrics") {
    return Answer(connection, get, 200, "text/plain; version=0.0.4; charset=utf-8", server.MetricsText());
  }
  if (path == "/livez") return Answer(connection, get, 200, "text/plain", "ok\n");
  if (path == "/readyz") {
    const absl::Status status = server.ready_();
    if (status.ok()) return Answer(connection, get, 200, "text/plain", "ok\n");
    return Answer(connection, get, 503, "text/plain", absl::StrCat("not ready: ", ErrorText(status), "\n"));
  }
  return Answer(connection, get, 404, "text/plain", "paths: /metrics /livez /readyz\n");
}

void HttpServer::SetBeforeScrape(std::function<void()> refresh) {
  absl::MutexLock lock(&refresh_mutex_);
  refresh_ = std::move(refresh);
}

std::string HttpServer::MetricsText() {
  {
    absl::MutexLock lock(&refresh_mutex_);
    if (refresh_) refresh_();
  }
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  std::vector<prometheus::MetricFamily> process = process_.Collect();
  families.insert(families.end(), std::make_move_iterator(process.begin()),
                  std::make_move_iterator(process.end()));
  prometheus::MetricFamily ready{"sextant_ready", "1 when /readyz says yes, else 0.",
                                 prometheus::MetricType::Gauge, std::vector<prometheus::ClientMetric>(1)};
  ready.metric[0].gauge.value = ready_().ok() ? 1 : 0;
  families.push_back(std::move(ready));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace sextant
