// Implements the handshake between processes of a group.
#include "common/collective/group_hello.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/frame.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr char kMagic[] = "sextgrp1";
constexpr size_t kMagicBytes = 8;
constexpr size_t kNonceBytes = 32;
constexpr size_t kMacBytes = 32;
constexpr size_t kHelloBytes = kMagicBytes + 20 + kNonceBytes;  // before its MAC
constexpr size_t kMaxMessage = 256;
constexpr size_t kLeastToken = 16;
constexpr uintmax_t kMostTokenFile = 64 << 10;
// The verdict's first byte.
constexpr char kWelcome = 1, kUnwanted = 2, kStranger = 3;

std::string Nonce() {
  std::string bytes(kNonceBytes, '\0');
  SEXTANT_CHECK_EQ(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), kNonceBytes), 1);
  return bytes;
}

std::string Mac(const std::string& token, absl::string_view side, absl::string_view challenge,
                absl::string_view message) {
  const std::string input = absl::StrCat(side, challenge, message);
  std::string mac(kMacBytes, '\0');
  unsigned int length = 0;
  SEXTANT_CHECK(HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()),
                     reinterpret_cast<const unsigned char*>(input.data()), input.size(),
                     reinterpret_cast<unsigned char*>(mac.data()), &length) != nullptr);
  return mac;
}

bool SameMac(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::Status Stranger() {
  return MakeError(absl::StatusCode::kPermissionDenied, "GROUP_TOKEN",
                   "the two sides have different group tokens: give every host the same --group_token_file");
}

// Verdict byte, length of the message, the message, MAC.
absl::Status SendVerdict(TcpSocket& socket, const std::string& token, absl::string_view challenge,
                         char verdict, absl::string_view message, absl::Time deadline) {
  std::string body(1, verdict);
  PutU32(body, static_cast<uint32_t>(std::min(message.size(), kMaxMessage)));
  absl::StrAppend(&body, message.substr(0, kMaxMessage));
  const std::string mac =
      verdict == kStranger ? std::string(kMacBytes, '\0') : Mac(token, "listener", challenge, body);
  return socket.Send(absl::StrCat(body, mac), deadline);
}

}  // namespace

absl::StatusOr<GroupHello> AcceptHello(TcpSocket& socket, const std::string& token,
                                       const std::function<absl::Status(const GroupHello&)>& check,
                                       absl::Time deadline) {
  const std::string challenge = Nonce();
  SEXTANT_RETURN_IF_ERROR(socket.Send(absl::StrCat(kMagic, challenge), deadline));
  SEXTANT_ASSIGN_OR_RETURN(const std::string bytes, socket.Receive(kHelloBytes + kMacBytes, deadline));
  const absl::string_view body = absl::string_view(bytes).substr(0, kHelloBytes);
  if (!SameMac(absl::string_view(bytes).substr(kHelloBytes), Mac(token, "member", challenge, body))) {
    SendVerdict(socket, token, "", kStranger, "", deadline).IgnoreError();
    return Stranger();
  }
  GroupHello hello;
  hello.purpose = static_cast<GroupHello::Purpose>(GetU32(body, kMagicBytes));
  hello.member = static_cast<int32_t>(GetU32(body, kMagicBytes + 4));
  hello.size = static_cast<int32_t>(GetU32(body, kMagicBytes + 8));
  hello.epoch = static_cast<int64_t>(GetU64(body, kMagicBytes + 12));
  const absl::string_view other_challenge = body.substr(kMagicBytes + 20);
  const absl::Status wanted = check(hello);
  SEXTANT_RETURN_IF_ERROR(SendVerdict(socket, token, other_challenge, wanted.ok() ? kWelcome : kUnwanted,
                                      wanted.message(), deadline));
  SEXTANT_RETURN_IF_ERROR(wanted);
  return hello;
}

absl::Status SendHello(TcpSocket& socket, const std::string& token, const GroupHello& hello,
                       absl::Time deadline) {
  SEXTANT_ASSIGN_OR_RETURN(const std::string opening, socket.Receive(kMagicBytes + kNonceBytes, deadline));
  if (opening.substr(0, kMagicBytes) != kMagic) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "GROUP_HELLO",
                     "what listens there is not a group of this version");
  }
  const std::string challenge = Nonce();
  std::string body = kMagic;
  PutU32(body, hello.purpose);
  PutU32(body, static_cast<uint32_t>(hello.member));
  PutU32(body, static_cast<uint32_t>(hello.size));
  PutU64(body, static_cast<uint64_t>(hello.epoch));
  absl::StrAppend(&body, challenge);
  SEXTANT_RETURN_IF_ERROR(
      socket.Send(absl::StrCat(body, Mac(token, "member", opening.substr(kMagicBytes), body)), deadline));

  SEXTANT_ASSIGN_OR_RETURN(std::string verdict, socket.Receive(5, deadline));
  const size_t length = GetU32(verdict, 1);
  if (verdict[0] == kStranger) return Stranger();
  if (length > kMaxMessage) return Stranger();
  SEXTANT_ASSIGN_OR_RETURN(const std::string rest, socket.Receive(length + kMacBytes, deadline));
  const std::string message = rest.substr(0, length);
  if (!SameMac(rest.substr(length), Mac(token, "listener", challenge, absl::StrCat(verdict, message))))
    return Stranger();
  if (verdict[0] == kWelcome) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "GROUP_HELLO", message);
}

absl::StatusOr<std::string> ReadGroupToken(const std::string& path) {
  // Reading a folder throws, and a pipe or a device has no end.
  std::error_code unknown;
  if (std::filesystem::is_regular_file(path, unknown) &&
      std::filesystem::file_size(path, unknown) <= kMostTokenFile) {
    std::ifstream file(path);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    std::string token(absl::StripAsciiWhitespace(text));
    if (token.size() >= kLeastToken) return token;
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID",
                   absl::StrCat("--group_token_file must name a file with at least ", kLeastToken,
                                " characters, the same on every host; \"", path, "\" is none"));
}

}  // namespace sextant
