// The rules of the capture protocol that a test can switch off, one by one, to show that it would notice.
#pragma once

namespace sextant {

// Every default is the protocol; a service never sets anything else. Each rule closes a hole in which rows,
// credit or readings are lost, repeated or kept for ever; protocol_test.cc brings the holes back and finds
// them.
struct ProtocolPolicy {
  // Messages of a capture that is unknown or closed are answered Gone. Otherwise a resent chunk waits for
  // ever.
  bool answer_gone = true;
  // Results of positions that are DONE or FAILED are dropped. Otherwise an expired lease makes a reading
  // twice.
  bool first_result_only = true;
  // Results of expired leases count. Otherwise a decoder slower than its lease never finishes anything.
  bool accept_late_results = true;
  // Credit is lent in whole positions, above a floor of one position for each capture. Otherwise it is lent
  // in fractions, first come first served, and captures that hold parts of positions wait for each other.
  bool whole_positions_and_floors = true;
  // A capture is bound to one group's epoch for ever. Otherwise a later epoch may take it over.
  bool bind_once = true;
  // A newer epoch's Hello closes streams of older epochs. Otherwise their late messages still count.
  bool fence_epochs = true;
  // A chunk that was stored is acknowledged and not stored again.
  bool check_sequence = true;
  // Credit of a position comes back when it is DONE or FAILED. Otherwise already when it is received.
  bool return_credit_when_done = true;
  // Closing returns all credit and frees all rows.
  bool return_credit_at_close = true;
  // Rows stay until their readings are in. Otherwise they are freed when they are leased.
  bool keep_rows_until_done = true;
  // Readings stay in the log until the capture closes. Otherwise they are freed when they are sent.
  bool keep_log_until_close = true;
  // Kept rows are in the spool before they are acknowledged.
  bool spool_before_ack = true;
  // Kept readings are in the spool before they are shown.
  bool spool_readings = true;
  // Time to live starts at the end, never while a kept capture is written.
  bool ttl_from_end = true;
  // A tombstone is written to the spool.
  bool durable_tombstone = true;
  // A deleted capture's bytes and reservation stay until its last reader and lease have ended.
  bool hold_for_readers = true;
};

}  // namespace sextant
