#!/usr/bin/env python3
"""A hub of the EmProps job queue: JSON messages over WebSocket, on 127.0.0.1.

Correct by default. --bug NAME plants one fault, --variant NAME (repeatable)
chooses another legal behaviour. --list prints both catalogues as JSON.
"""
import argparse
import asyncio
import base64
import binascii
import collections
import datetime
import hashlib
import json
import math
import os
import random
import re
import signal
import sys
import time
import traceback
import unicodedata
import uuid

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

# --------------------------------------------------------------------------
# Catalogue. One row: name, kind, line, sentence, does, seen.

BUG_ROWS = [
    # history
    ("stale_request_id", "history", 616, "An error names the message it answers in request_id.", "An error about a message without id repeats the request_id of the previous error of the connection.", "The second error carries the id of the first, already answered message."),
    ("stale_original_message", "history", 649, "unknown returns the original message that was not recognized.", "From the second unrecognized message of a connection on, original_message is the first one.", "original_message of the second answer parses to the first message."),
    ("ping_after_malformed", "history", 700, "A ping is answered with a pong.", "After a text that is not JSON the next ping of the connection is dropped.", "No pong for the first ping after the error."),
    ("resubmission_same_id", "history", 161, "job_accepted names the job that was accepted, with status queued.", "A job equal to one the connection has cancelled is accepted under the cancelled job's id and not queued.", "The second job_accepted has the first id; its status is cancelled; no worker is given it."),
    ("status_keeps_first_worker", "history", 186, "response_job_status names the worker of the job.", "worker_id in the status answer stays at the first worker after a retry by another worker.", "The answer names the worker that gave the job up."),
    ("status_answer_by_message_id", "history", 183, "response_job_status answers for the job that was asked for.", "Status answers are cached by the message id, over all connections.", "A second connection that uses the same id for another job gets the first job's answer."),
    ("no_progress_after_retry", "history", 750, "Each update_job_progress is followed by a job_update to the client.", "Once a job has failed and was scheduled again, its progress is no longer passed on.", "No job_update with the progress of the second attempt."),
    ("stats_resubscribe_dead", "history", 459, "subscribe_stats with enabled true subscribes to system stats.", "After enabled false a later enabled true is confirmed but starts nothing.", "subscription_confirmed comes, system_status never does."),
    ("cleanup_ignored_on_return", "history", 714, "disconnect with cleanup_subscriptions true ends the subscriptions.", "The job subscriptions of the client come back when its client_id registers again.", "After the return a job_update of a job arrives that the new connection never subscribed to."),
    ("second_cancel_not_done", "history", 208, "job_cancelled confirms that the job is cancelled.", "From the second cancel_job of a connection on the confirmation is sent but the job stays queued.", "The job's status is queued, and a claim is given the job."),
    ("capabilities_first_update_only", "history", 409, "worker_status tells the hub the worker's capabilities.", "Only the first worker_status with capabilities is taken over.", "A job that needs the ability announced second is not given to the worker."),
    # several
    ("fifth_subscriber_evicts_first", "several", 424, "subscribe_job subscribes the connection to the job.", "The fifth subscriber of a job evicts the first.", "The first of five subscribers gets no job_update."),
    ("fourth_worker_not_notified", "several", 165, "notified_workers is the number of workers told of the job.", "Only three workers are sent job_available; the count names all.", "notified_workers says five, three got a message."),
    ("max_jobs_exceeded", "several", 224, "max_jobs is the most jobs a claim may be given.", "A claim for two or more jobs gets one more when the queue has it.", "Three job_assigned for max_jobs 2."),
    ("sixth_assigned_twice", "several", 238, "A job that is assigned belongs to the worker named in job_assigned.", "Every sixth job that a connection submits stays in the queue after its assignment.", "A second worker is assigned the same job."),
    ("sixth_of_burst_unanswered", "several", 158, "submit_job is answered with job_accepted.", "When six or more submit_job arrive within 200 ms on a connection, the sixth gets no answer.", "Five job_accepted for six messages."),
    ("third_subscription_drops_first", "several", 424, "subscribe_job subscribes the connection to the job.", "A connection's third subscribe_job ends its first.", "No job_update for the first of three jobs."),
    ("equal_workers_counted_once", "several", 537, "active_workers is the number of active workers.", "Workers with the same services count as one.", "active_workers grows by one for two workers."),
    ("completion_requeues_other", "several", 292, "complete_job completes the job it names.", "Completing one job sends the worker's other jobs back to the queue.", "The status of the other job falls from in_progress to queued."),
    ("interleaved_chunks", "several", 668, "chunk_id tells which message a chunk belongs to.", "The first chunk of a second chunk_id throws away the open chunks of the connection.", "Of two interleaved messages only the second is completed."),
    ("component_unchecked", "several", 150, "requirements.component names the component the worker must have.", "For workers with two or more services the component is not compared.", "A worker without the component is assigned the job."),
    ("stats_first_interval", "several", 466, "subscribe_stats names the interval of the subscription.", "While another connection is subscribed to stats, its interval is used for all.", "update_interval is confirmed as asked, but no system_status comes after that time."),
    # identity
    ("worker_prefix_32", "identity", 239, "job_assigned goes to the worker that claimed, under its worker_id.", "Worker ids are compared by their first 32 characters.", "A second worker displaces the first: its claims are refused or answered under the wrong id."),
    ("customer_case", "identity", 436, "The filter customer_id selects the jobs of that customer.", "The filter ignores upper and lower case.", "A subscriber gets updates of another customer's job."),
    ("chunk_ids_nfc", "identity", 668, "chunk_id tells which message a chunk belongs to.", "chunk_ids are compared after Unicode normalisation.", "Two messages whose ids differ only in composed and decomposed form are mixed."),
    ("ack_id_of_other", "identity", 639, "ack.message_id is the id of the acknowledged message.", "message_id is the id last seen on any other connection, when there is one.", "The acknowledgment names a message of another client."),
    ("request_id_32", "identity", 616, "An error names the message it answers in request_id.", "request_id is cut to 32 characters.", "Two errors for messages whose ids share 32 characters cannot be told apart."),
    ("update_worker_of_last_claim", "identity", 509, "job_update names the worker of the job.", "worker_id in job_update is the worker that was last assigned any job.", "The update of the first job names the second worker."),
    ("completed_to_namesake", "identity", 760, "job_completed goes to the client that submitted the job.", "It goes to the connection that registered last under the same client_id.", "The submitter gets no job_completed, its namesake does."),
    ("connection_id_per_client", "identity", 82, "Each connection is assigned an id of its own.", "Connections with the same client_id are given the same assigned_connection_id.", "Two open connections share an id."),
    ("completed_ack_first_job", "identity", 322, "job_completed_ack names the completed job.", "It names the first job the worker still holds.", "Completing the second of two jobs is acknowledged under the first one's id."),
    ("failed_ack_first_worker", "identity", 353, "job_failed_ack names the worker that reported the failure.", "It names the worker that failed the job the first time.", "The second worker is acknowledged under the first one's id."),
    ("progress_to_first_job", "identity", 506, "job_update is about the job whose progress was reported.", "Progress of any but the worker's first job is reported as progress of the first.", "The first submitter gets the second job's progress."),
    # neighbours
    ("subscriber_leaves_all_dropped", "neighbours", 424, "subscribe_job subscribes the connection to the job.", "When a subscriber of a job goes away, all subscriptions to the job end.", "The remaining subscriber gets no job_update."),
    ("stats_off_for_all", "neighbours", 462, "enabled false ends the stats of the connection that sent it.", "It ends the broadcasts of all connections with the same interval.", "Another subscriber gets no further system_status."),
    ("open_chunks_block_others", "neighbours", 677, "When all chunks are there the hub completes the message.", "While one connection has an unfinished message, those of others are not completed.", "No chunked_message_complete for a complete message."),
    ("submitter_gone_no_updates", "neighbours", 503, "Subscribers are told of a job's status changes.", "Once the submitter's connection has ended, nobody is told of the job.", "The subscriber of the job gets no job_update."),
    ("unaccepted_blocks_customer", "neighbours", 235, "claim_job is answered with job_assigned.", "While a worker has not accepted an assignment, no other worker is given jobs of that customer.", "A second worker's claim gets nothing although a job waits."),
    ("namesake_leaves", "neighbours", 747, "The submitting client is told of the job by job_update.", "When a connection ends, other connections with its client_id get no more updates of their jobs.", "The submitter that stays gets no job_update."),
    ("monitor_leaves_no_alerts", "neighbours", 546, "Monitors are told of alerts by system_alert.", "When a monitor leaves, the monitors that were connected with it get no more alerts.", "The remaining monitor gets no system_alert."),
    ("weak_claim_hides_job", "neighbours", 235, "claim_job is answered with job_assigned.", "A claim by a worker that cannot do a job hides the job from other workers for good.", "The able worker's claim gets nothing although the job waits."),
    ("last_filter_wins", "neighbours", 435, "Each subscription to notifications has its own filters.", "The filters of the last subscriber apply to all subscribers.", "The first subscriber gets no update of the jobs it asked for."),
    ("status_query_eats_update", "neighbours", 747, "The submitting client is told of the job by job_update.", "When another client asks for a job's status, the submitter's next job_update of it is left out.", "A progress step is missing at the submitter."),
    ("malformed_hits_next_submitter", "neighbours", 158, "submit_job is answered with job_accepted.", "After malformed text on one connection the next submit_job of another connection is refused as malformed.", "error instead of job_accepted for a correct message."),
    # values
    ("nul_stripped", "values", 242, "job_assigned carries the payload of the job.", "U+0000 is removed from strings of the payload.", "The string comes back shorter."),
    ("html_escaped", "values", 525, "job_completed carries the output files of the result.", "<, & and > are written as HTML entities in output_files.", "The address comes back changed."),
    ("null_dropped", "values", 242, "job_assigned carries the payload of the job.", "Members of the payload with the value null are left out.", "A member of the payload is missing."),
    ("priority_zero", "values", 241, "job_assigned carries the priority of the job.", "Priority 0 is taken for missing and becomes 50.", "job_assigned says 50."),
    ("long_string_cut", "values", 242, "job_assigned carries the payload of the job.", "Strings of 65,536 and more characters are cut to 65,535.", "The string comes back shorter."),
    ("numeric_text", "values", 242, "job_assigned carries the payload of the job.", "Strings of the payload that look like a decimal number become numbers.", "\"007\" comes back as 7."),
    ("progress_fraction", "values", 510, "job_update carries the progress that was reported.", "Fractions are cut off the progress.", "33.3 comes back as 33."),
    ("prototype_names", "values", 242, "job_assigned carries the payload of the job.", "Members named __proto__, constructor and toString are left out of the payload.", "A member of the payload is missing."),
    ("success_false", "values", 524, "job_completed carries success of the result.", "success false is taken for missing and becomes true.", "job_completed says success true."),
    ("processing_time_zero", "values", 522, "job_completed carries the processing time.", "processing_time 0 becomes null.", "job_completed has no number."),
    ("int32_wrap", "values", 242, "job_assigned carries the payload of the job.", "Integers of the payload beyond 32 bits are cut to 32 bits.", "4294967297 comes back as 1."),
    ("gpu_fraction", "values", 152, "requirements.hardware.gpu_memory_gb is the memory the worker must have.", "The fraction of the requirement is cut off.", "A worker with 8 GB is assigned a job that needs 8.5."),
    # equivalents
    ("type_last", "equivalents", 20, "type identifies the message (the order of members has no meaning, RFC 8259, 4).", "A message whose last member is type is taken as one without type.", "submit_job with type at the end is answered with error."),
    ("leading_white_space", "equivalents", 16, "Messages are JSON (white space may precede the value, RFC 8259, 2).", "A text that starts with a line feed or a tab is refused as malformed.", "error instead of job_accepted."),
    ("escaped_type", "equivalents", 20, "type identifies the message (an escape stands for its character, RFC 8259, 7).", "A type written with escapes is not recognized.", "unknown instead of job_accepted."),
    ("fourth_frame_lost", "equivalents", 16, "Messages may be sent in several frames (RFC 6455, 5.4).", "The fourth and later frames of a message are dropped.", "error instead of the answer."),
    ("exponent_ignored", "equivalents", 139, "priority is a number (7.5e1 is 75, RFC 8259, 6).", "The exponent of a number is ignored.", "The priority comes back as 7.5."),
    ("surrogate_escapes", "equivalents", 242, "job_assigned carries the payload (two escapes may stand for one character, RFC 8259, 7).", "A pair of surrogate escapes becomes two replacement characters.", "The string comes back changed, while the same text in UTF-8 does not."),
    ("ping_between_frames", "equivalents", 16, "Control frames may be injected in a fragmented message (RFC 6455, 5.4).", "A ping frame between frames discards what came before.", "error instead of the answer."),
    ("utf8_across_frames", "equivalents", 16, "Text is UTF-8 as a whole message, not frame by frame (RFC 6455, 5.6).", "A character that is split between two frames becomes replacement characters.", "The string comes back changed."),
    ("upgrade_case", "equivalents", 8, "Clients connect by WebSocket (Upgrade is compared without case, RFC 6455, 4.2.1).", "Upgrade: WebSocket with capitals is refused.", "HTTP 400 instead of 101."),
    ("chunk_order", "equivalents", 669, "chunk_index says where a chunk belongs.", "Chunks are put together in the order of arrival.", "Chunks sent last first are refused."),
    ("extra_members_refused", "equivalents", 26, "Messages may have additional members.", "submit_job with a member that the document does not show is refused.", "error instead of job_accepted."),
    # one-of-many
    ("alert_seconds", "one-of-many", 21, "timestamp is Unix time in milliseconds, in all messages.", "timestamp of a system_alert of severity critical is in seconds.", "The number is a thousand times too small."),
    ("cancel_error_without_code", "one-of-many", 610, "An error has an error_code.", "Errors in answer to cancel_job have none.", "error_code is missing."),
    ("connector_status_unknown", "one-of-many", 588, "connector_ws_status is a message of a worker.", "connector_ws_status with another status than connected is answered as an unrecognized type.", "unknown comes back."),
    ("no_update_on_cancel", "one-of-many", 503, "Subscribers are told of a job's status changes.", "They are not told when a job is cancelled.", "The subscriber gets no job_update with status cancelled."),
    ("no_update_on_failure", "one-of-many", 503, "Subscribers are told of a job's status changes.", "Nobody is told when a job has failed for good.", "No job_update although the status is no longer in_progress."),
    ("previous_status_retry", "one-of-many", 508, "previous_status is the status before the change.", "When a failed job is queued again, previous_status is assigned, whatever it was.", "A job that was in_progress is reported as assigned before."),
    ("monitor_without_connection_id", "one-of-many", 82, "client_registered carries assigned_connection_id.", "It is missing for a monitor that registers while another monitor is connected.", "client_registered without assigned_connection_id."),
    ("completed_ignores_priority_min", "one-of-many", 438, "The filter priority_min selects jobs of at least that priority.", "job_completed is sent whatever the job's priority.", "A subscriber gets job_completed of a job below its minimum."),
    ("workers_not_told", "one-of-many", 718, "The hub announces that it disconnects by server_disconnect.", "Connections of workers are closed without it.", "A worker sees the close only, a client the message too."),
    ("no_pong_while_working", "one-of-many", 700, "A ping is answered with a pong.", "The pings of a worker that holds a job are not answered.", "No pong on the worker's connection."),
    ("second_service_ignored", "one-of-many", 108, "capabilities.services lists the services of the worker.", "Only the first service of the list is compared.", "A job for the second service is not given to the worker."),
    # second lot: history
    ("cancelled_in_retry_returns", "history", 209, "A cancelled job has the status cancelled.", "A job that is cancelled while the delay of its retry runs is queued again when the delay is over.", "The status goes from cancelled to queued, and a worker is given the job."),
    ("chunk_id_burnt", "history", 677, "When all chunks are there the hub completes the message.", "Once a message was refused for its hash, later chunks under the same chunk_id are taken for stragglers and ignored.", "The repetition with the right hash is not completed."),
    ("notifications_off_last_only", "history", 434, "enabled false ends the job notifications.", "It ends only the subscription made last; the one that it had replaced becomes active again.", "After two subscriptions and enabled false the connection is told of jobs of the first filter."),
    ("old_services_remembered", "history", 108, "capabilities.services lists the services of the worker.", "A worker that registers again keeps the services of its earlier registrations.", "After a return without a service the worker is still given jobs for it."),
    ("not_told_after_empty_claim", "history", 115, "A worker with subscribe_to_jobs true is told of jobs by job_available.", "A worker whose claim found no job is only counted, not told, until it has been assigned a job.", "No job_available after a claim on the empty queue."),
    # second lot: several
    ("chunks_sorted_as_text", "several", 669, "chunk_index says where a chunk belongs.", "Chunks are sorted by the text of their index: 1, 10, 11, 2.", "A message of eleven or more chunks is refused for its hash."),
    ("result_first_watcher_only", "several", 523, "job_completed carries the result.", "Only the first of those who are told gets the result.", "job_completed of a subscriber besides the submitter has no result."),
    ("progress_throttled_by_worker", "several", 750, "Each update_job_progress is followed by a job_update to the client.", "Progress of a job that comes within 200 ms after progress of another job of the worker is not passed on.", "Of two jobs reported in a row one client is told, the other is not."),
    ("heartbeat_first_job_only", "several", 372, "current_jobs lists the jobs that the worker has.", "Of a list of two or more only the first is believed; the other jobs in progress go back to the queue.", "The second job's status falls from in_progress to queued after a heartbeat that lists it."),
    # second lot: identity
    ("chunk_table_shared", "identity", 668, "chunk_id tells which message a chunk belongs to, and is chosen by the client.", "Open messages of all connections are kept in one table by chunk_id.", "Two clients that happen to use the same chunk_id get errors and no completion."),
    ("job_type_substring", "identity", 437, "The filter job_types selects jobs of these types.", "A type that contains a type of the filter fits too.", "A subscriber to upscaling is told of upscaling_hd."),
    ("foreign_fail_accepted", "identity", 333, "fail_job comes from the worker that has the job.", "fail_job of any registered worker is carried out.", "The job is taken from its worker by another one's fail_job."),
    ("stats_by_client_id", "identity", 459, "subscribe_stats subscribes the connection that sent it.", "Stats subscriptions are kept by client_id; a namesake's subscription replaces the first.", "The first of two connections with one client_id gets no further system_status."),
    ("cancel_confirmed_to_owner", "identity", 205, "job_cancelled goes to the client that sent cancel_job.", "It goes to the client that submitted the job.", "A client that cancels another one's job gets no job_cancelled."),
    # second lot: neighbours
    ("old_claim_timer_fires", "neighbours", 249, "claim_timeout limits the assignment that it was sent for.", "The timer of an assignment that was given up unaccepted goes on and takes the job from the next worker.", "The second worker's accepted job goes back to the queue after the first one's claim_timeout."),
    ("old_connection_takes_worker", "neighbours", 124, "worker_registered confirms that the worker is registered.", "When the earlier connection of a worker_id ends, the registration on the new connection goes with it.", "The returned worker is no longer told of jobs nor counted, once its old connection has ended."),
    ("leaver_skips_next", "neighbours", 503, "Subscribers are told of a job's status changes.", "When a subscriber of a job goes away, the next in the list is skipped once.", "The subscriber that came after the one that left misses one job_update."),
    ("claim_lock_leak", "neighbours", 235, "claim_job is answered with job_assigned.", "A claim that is refused for a bad member leaves the queue locked, until this worker claims again or leaves.", "Another worker's claim gets nothing although a job waits."),
    # second lot: values
    ("empty_object_becomes_list", "values", 242, "job_assigned carries the payload of the job.", "Empty objects within the payload become empty lists.", "{} comes back as []."),
    ("iso_strings_normalised", "values", 242, "job_assigned carries the payload of the job.", "Strings of the payload that are ISO 8601 date-times are rewritten in UTC with milliseconds.", "2024-01-15T12:05:30+02:00 comes back as 2024-01-15T10:05:30.000Z."),
    ("deep_payload_as_text", "values", 242, "job_assigned carries the payload of the job.", "Objects and lists of the payload below 16 levels become their JSON text.", "A string comes back instead of an object."),
    ("empty_message_keeps_last", "values", 511, "job_update carries the message that was reported.", "An empty message is taken for missing, so the one before is repeated.", "The update has the message of the previous step."),
    # second lot: equivalents
    ("empty_first_frame_lost", "equivalents", 16, "Messages may be sent in several frames, empty ones too (RFC 6455, 5.4).", "A message whose first frame is empty is thrown away.", "No answer at all."),
    ("line_feeds_inside_refused", "equivalents", 16, "Messages are JSON (white space is allowed between tokens, RFC 8259, 2).", "A text with a line feed between its first and last token is refused.", "error instead of the answer to a message that is written over several lines."),
    ("integral_fraction_refused", "equivalents", 224, "max_jobs is a number (2.0 is 2, RFC 8259, 6).", "max_jobs written with a fraction of zero or an exponent is refused.", "error instead of job_assigned."),
    ("solidus_escape_kept", "equivalents", 242, "job_assigned carries the payload (the solidus may be escaped, RFC 8259, 7).", "The backslash of an escaped solidus stays in the string.", "a\\/b comes back with a backslash."),
    # second lot: one-of-many
    ("lost_worker_not_reported", "one-of-many", 503, "Subscribers are told of a job's status changes.", "Nobody is told when a job goes back to the queue because its worker's connection ended.", "The status is queued, but no job_update said so."),
    ("failed_counted_completed", "one-of-many", 540, "completed_jobs_last_hour is the number of completed jobs.", "Jobs that failed for good are counted too.", "The number grows after a final fail_job."),
    ("reannounced_without_summary", "one-of-many", 496, "job_available carries requirements_summary.", "It is empty when a job is announced again after a retry.", "The second job_available of a job has no service_type."),
    ("worker_error_without_request_id", "one-of-many", 616, "An error names the message it answers in request_id.", "Errors about a worker that is not registered have no request_id.", "request_id is missing in the answer to a worker's message with an id."),
]

VARIANT_ROWS = [
    ("member_order", "Members are sent in reverse order, type last.", "RFC 8259, 4: objects are unordered."),
    ("extra_members", "Messages carry additional members, among them id and source.", "Lines 22 to 26: id, source and any further member are allowed."),
    ("number_spelling", "Integers are written with a fraction of zero.", "RFC 8259, 6: 30 and 30.0 are the same number; line 21: number."),
    ("ascii_only", "All characters beyond ASCII and the solidus are escaped.", "RFC 8259, 7: any character may be escaped."),
    ("white_space", "Messages are sent indented, over several lines.", "RFC 8259, 2: white space is allowed around tokens."),
    ("fragmented", "Messages are sent in several frames.", "RFC 6455, 5.4: a message may be fragmented."),
    ("compressed", "permessage-deflate is accepted when offered.", "RFC 6455, 9 and RFC 7692."),
    ("hub_pings", "The hub sends ping messages and ping frames.", "Line 693: ping is periodic, the side is open; RFC 6455, 5.5.2."),
    ("slow", "Every message is sent up to 15 ms late; the order on a connection is kept.", "The document gives no times."),
    ("fifo", "Jobs are assigned in the order of arrival.", "The document does not say how priority decides the order."),
    ("position_from_zero", "position counts from 0.", "Line 163: how position counts is open."),
    ("no_ack", "The generic ack is never sent.", "Line 636: when ack is sent is open."),
    ("ack_all", "ack is sent for every served message with an id, besides its own answer.", "Lines 636 to 643: the example acknowledges submit_job."),
    ("strict_registration", "Other messages than registration, ping and pong are refused before registration.", "Lines 39 to 44: registration comes first."),
    ("notify_all", "job_available goes to all subscribed workers, able or not.", "Line 490: \"to workers\"."),
    ("notify_idle_only", "job_available goes to idle workers only.", "Line 490: which workers is open."),
    ("filters_short", "filters_applied names customer_id and job_types only.", "Lines 448 to 451: the example shows these two of four."),
    ("short_result", "result in job_completed has success and output_files only.", "Lines 523 to 526: the example leaves out the rest."),
    ("reserialised", "original_message is the message parsed and written anew.", "Line 649: the form of the text is open."),
    ("uuid_ids", "Ids given by the hub are UUIDs in capitals.", "Line 24: an id is a string."),
    ("pong_echo", "pong repeats the timestamp of ping.", "Lines 694 to 703: both show the same timestamp."),
    ("stats_sections", "system_status has the members of the requested sections only.", "Line 464: include_sections."),
    ("subscribe_job_ack", "subscribe_job is confirmed by ack instead of subscription_confirmed.", "Lines 424 to 429: no confirmation of its own is shown."),
    ("stats_at_once", "The first system_status follows the confirmation at once.", "Line 473: only the next periodic broadcast is announced."),
    ("silent_no_jobs", "A claim that finds no job is not answered.", "Lines 219 to 251: only the answer with a job is shown."),
    ("keep_on_disconnect", "Jobs stay with a worker whose connection ended.", "The document does not say what happens to them."),
    ("disconnect_left_open", "After disconnect the hub leaves the closing to the client.", "Lines 709 to 716: who closes is open."),
    ("close_without_code", "The hub closes without a code.", "RFC 6455, 5.5.1: the body of a close frame is optional."),
    ("strict_timestamp", "Messages without timestamp are refused.", "Line 21: timestamp is not optional."),
    ("free_texts", "Other texts for people, and other error codes than the document's two examples.", "Lines 609 and 610: texts and the set of codes are open."),
    ("initial_snapshot", "subscribe_job is followed by a job_update with the present state.", "Lines 423 to 429: open."),
    ("additive_filters", "A second subscribe_job_notifications adds to the first.", "Line 447: subscriptions have ids."),
    ("newest_first", "Among jobs of equal priority the newest is assigned first.", "The document states no order of assignment."),
    ("worker_told_of_cancel", "The worker that holds a job is told by job_update when it is cancelled.", "Lines 503 to 513: to whom job_update goes is open."),
    ("completed_update_too", "job_completed is preceded by a job_update with status completed.", "Lines 503 to 513: completion is a status change."),
    ("long_ids", "Ids given by the hub are 130 characters long, with blanks, solidi and characters beyond ASCII.", "Line 24: an id is a string."),
    ("retry_backoff", "Each retry of a job waits twice as long as the one before.", "Line 356: the acknowledgment says how long; how it is chosen is open."),
    ("started_at_acceptance", "started_at is the time of the acceptance, not of the first progress.", "Line 187: what counts as the start is open."),
    ("iso_offset", "estimated_start is written with milliseconds and +00:00.", "Line 164: an ISO 8601 time, its exact form is open."),
    ("alerts_to_all", "system_alert goes to all connections.", "Lines 546 to 562: who gets alerts is open."),
]

KINDS = ("history", "several", "identity", "neighbours", "values", "equivalents", "one-of-many")
BUG_NAMES = [row[0] for row in BUG_ROWS]
VARIANT_NAMES = [row[0] for row in VARIANT_ROWS]


def catalogue():
    bugs = [dict(zip(("name", "kind", "line", "sentence", "does", "seen"), row)) for row in BUG_ROWS]
    return {"bugs": bugs, "variants": [dict(zip(("name", "does", "why"), row)) for row in VARIANT_ROWS]}

# --------------------------------------------------------------------------
# Small helpers


def now_ms():
    return int(time.time() * 1000)


def iso(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_texts(value):
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def walk(value, change):
    """Rebuild a JSON value; change is called for every scalar, bottom up."""
    if isinstance(value, dict):
        return {key: walk(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [walk(item, change) for item in value]
    return change(value)


def drop_members(value, unwanted):
    if isinstance(value, dict):
        return {key: drop_members(item, unwanted) for key, item in value.items() if not unwanted(key, item)}
    if isinstance(value, list):
        return [drop_members(item, unwanted) for item in value]
    return value


def lists_for_empty(value):
    if isinstance(value, dict):
        return {key: lists_for_empty(item) for key, item in value.items()} if value else []
    return [lists_for_empty(item) for item in value] if isinstance(value, list) else value


def text_below(value, levels):
    if not isinstance(value, (dict, list)):
        return value
    if levels == 0:
        return json.dumps(value)
    if isinstance(value, dict):
        return {key: text_below(item, levels - 1) for key, item in value.items()}
    return [text_below(item, levels - 1) for item in value]


def in_utc(text):
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text, re.A):
        return text
    try:
        moment = datetime.datetime.fromisoformat(text).astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        return text
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + "%03dZ" % (moment.microsecond // 1000)


def int_to_float(value):
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2 ** 53:
        return float(value)
    return value


def finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


def no_constant(text):
    raise ValueError(text + " is not JSON")


class Refused(Exception):
    """A message that is answered with an error."""

    def __init__(self, text, code, details=None):
        super().__init__(text)
        self.text, self.code, self.details = text, code, details or {}


def invalid(field, why, value):
    return Refused("Invalid job parameters", "INVALID_PARAMETERS",
                   {"field": field, "message": why, "provided_value": value})


DOCUMENTED_SUBMIT = {"type", "timestamp", "id", "source", "job_id", "worker_id", "job_type", "priority",
                     "payload", "customer_id", "requirements"}
BEFORE_REGISTRATION = {"register_client", "register_worker", "ping", "pong", "disconnect"}
OWN_ANSWER = {"register_client", "register_worker", "submit_job", "request_job_status", "cancel_job", "claim_job",
              "complete_job", "fail_job", "worker_heartbeat", "subscribe_job", "subscribe_job_notifications",
              "subscribe_stats", "request_stats", "chunked_message", "ping", "pong", "ack", "disconnect"}


class Job:
    def __init__(self, job_id, seq, owner, fields, size):
        self.id, self.seq, self.owner, self.size = job_id, seq, owner, size
        self.fields = fields
        self.job_type, self.priority = fields["job_type"], fields["priority"]
        self.payload, self.requirements = fields["payload"], fields["requirements"]
        self.customer_id = fields["customer_id"]
        self.status, self.attempts = "queued", 0
        self.worker = None          # Worker while assigned or in progress, and after the end
        self.progress = self.message = self.started_at = self.estimate = None
        self.ready = True           # False while the delay of a retry runs
        self.deadline = None        # timer of the claim
        # only bugs use these
        self.first_worker = self.first_failed = None
        self.hidden = self.sticky = self.owner_gone = False


class Worker:
    def __init__(self, worker_id, conn):
        self.id, self.conn = worker_id, conn
        self.capabilities, self.status, self.notify = {}, "idle", False
        self.jobs = {}              # held jobs in order of assignment
        self.updates = 0
        self.waiting, self.last_report = False, None    # only bugs use these


# --------------------------------------------------------------------------
# One WebSocket connection


class Conn:
    def __init__(self, hub, writer):
        self.hub, self.writer = hub, writer
        extensions = None
        if hub.has("compressed"):
            from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
            extensions = [ServerPerMessageDeflateFactory()]
        self.proto = ServerProtocol(max_size=hub.options.max_message, extensions=extensions)
        self.id = self.client_id = self.client_type = None
        self.registered = self.closing = self.gone = False
        self.workers, self.job_subs, self.notifs, self.chunks = {}, {}, [], {}
        self.stats = None           # (interval, sections, task)
        self.buffer, self.frames, self.binary = None, 0, False
        self.mem = {}               # only bugs use it
        self.late = collections.deque()
        self.late_task = None

    # output -------------------------------------------------------------

    def send(self, message):
        if self.gone or self.closing or self.proto.state is not OPEN:
            return
        text = self.hub.encode(message)
        if self.hub.has("slow"):
            self.later(text)
        else:
            self.put(text)

    def later(self, item):
        if len(self.late) > 20000:
            self.abort()
            return
        self.late.append(item)
        if self.late_task is None:
            self.late_task = asyncio.ensure_future(self.drip())

    async def drip(self):
        while self.late and not self.gone:
            await asyncio.sleep(self.hub.random.random() * 0.015)
            for _ in range(min(len(self.late), self.hub.random.randint(1, 4))):
                item = self.late.popleft()
                if isinstance(item, str):
                    self.put(item)
                else:
                    self.put_close(*item)
        self.late_task = None

    def put(self, text):
        if self.gone or self.proto.state is not OPEN:
            return
        data = text.encode()
        if self.hub.has("fragmented") and len(data) > 3:
            third = len(data) // 3
            self.proto.send_text(data[:third], fin=False)
            self.proto.send_continuation(data[third:2 * third], fin=False)
            self.proto.send_continuation(b"", fin=False)
            self.proto.send_continuation(data[2 * third:], fin=True)
        else:
            self.proto.send_text(data)
        self.flush()

    def flush(self):
        for data in self.proto.data_to_send():
            if self.writer.is_closing():
                return
            if data:
                self.writer.write(data)
            else:
                self.writer.close()
        if self.writer.transport.get_write_buffer_size() > self.hub.options.max_buffer:
            self.abort()

    def close(self, code, reason=""):
        if self.closing:
            return
        self.closing = True
        if self.hub.has("close_without_code"):
            code, reason = None, ""
        if self.late:
            self.late.append((code, reason))
        else:
            self.put_close(code, reason)

    def put_close(self, code, reason):
        if self.proto.state is OPEN:
            self.proto.send_close(code, reason)
            self.flush()
        asyncio.get_running_loop().call_later(5, self.abort)

    def abort(self):
        if not self.gone:
            self.writer.transport.abort()

    # input --------------------------------------------------------------

    def feed(self, data):
        self.proto.receive_data(data)
        for event in self.proto.events_received():
            if isinstance(event, Request):
                self.answer_handshake(event)
            elif isinstance(event, Frame):
                self.take_frame(event)
        self.flush()

    def answer_handshake(self, request):
        upgrade = request.headers.get("Upgrade", "")
        if self.hub.bug == "upgrade_case" and upgrade != upgrade.lower():
            response = self.proto.reject(400, "Bad Upgrade header.\n")
        else:
            response = self.proto.accept(request)
        self.proto.send_response(response)
        self.flush()
        if self.proto.state is OPEN:
            self.hub.opened(self)

    def take_frame(self, frame):
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self.buffer, self.frames, self.binary = bytearray(), 0, frame.opcode is Opcode.BINARY
        elif frame.opcode is Opcode.PING:
            if self.hub.bug == "ping_between_frames" and self.buffer:
                self.buffer = bytearray()
            return
        elif frame.opcode is not Opcode.CONT:
            return
        if self.buffer is None:
            return
        if self.hub.bug == "empty_first_frame_lost" and self.frames == 1 and not self.buffer:
            self.buffer = None
            return
        self.frames += 1
        if self.hub.bug == "utf8_across_frames":
            self.buffer += bytes(frame.data).decode("utf-8", "replace").encode()
        elif not (self.hub.bug == "fourth_frame_lost" and self.frames >= 4):
            self.buffer += frame.data
        if frame.fin:
            data, self.buffer = self.buffer, None
            if self.closing:
                return
            if self.binary:
                self.hub.refuse(self, {}, Refused("Messages are text", "INVALID_MESSAGE"))
                return
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                self.closing = True
                if self.proto.state is OPEN:
                    self.proto.fail(1007, "not UTF-8")
                    self.flush()
                return
            self.hub.receive(self, text)


# --------------------------------------------------------------------------
# The hub


class Hub:
    def __init__(self, options):
        self.options = options
        self.bug = options.bug
        self.variants = frozenset(options.variant)
        self.random = random.Random(options.seed)
        self.conns, self.workers, self.jobs, self.queued, self.job_subs = {}, {}, {}, {}, {}
        self.finished, self.completed_times = collections.deque(), collections.deque(maxlen=100000)
        self.kept = collections.OrderedDict()   # client_id -> subscriptions kept over a disconnect
        self.left = {}              # workers that went away and keep their jobs
        self.alerts = collections.deque(maxlen=20)
        self.bytes = self.chunk_bytes = self.counter = 0
        self.mem = {}               # only bugs use it
        self.stop = asyncio.Event()
        self.handlers = {name[3:]: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def has(self, variant):
        return variant in self.variants

    def new_id(self, prefix):
        self.counter += 1
        if self.has("uuid_ids"):
            return str(uuid.UUID(int=self.random.getrandbits(128), version=4)).upper()
        if self.has("long_ids"):
            return ("%s \u00e9/\u4e16:%d " % (prefix, self.counter)).ljust(130, "~")
        return "%s-%06x%04x" % (prefix, self.random.getrandbits(24), self.counter)

    # encoding -----------------------------------------------------------

    def encode(self, message):
        message.setdefault("timestamp", now_ms())
        if self.has("extra_members"):
            message = {"id": self.new_id("msg"), "source": "hub", **message, "hub_load": 0.25, "x": None}
        if self.has("number_spelling"):
            message = walk(message, int_to_float)
        if self.has("member_order"):
            message = dict(reversed(message.items()))
        indent = "\t" if self.has("white_space") else None
        text = json.dumps(message, ensure_ascii=self.has("ascii_only"), indent=indent,
                          separators=None if indent else (",", ":"), allow_nan=False)
        try:
            text.encode()
        except UnicodeEncodeError:      # a lone surrogate can only be sent as an escape
            text = json.dumps(message, ensure_ascii=True, separators=(",", ":"))
        if self.has("ascii_only"):
            text = text.replace("/", "\\/")
        if self.has("white_space"):
            text = "\r\n " + text + "\n"
        return text

    def decode(self, text):
        if self.bug == "surrogate_escapes":
            text = re.sub(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", "\ufffd\ufffd", text, flags=re.I)
        if self.bug == "leading_white_space" and text[:1] in "\n\t":
            raise ValueError("white space")
        if self.bug == "line_feeds_inside_refused" and "\n" in text.strip():
            raise ValueError("more than one line")
        if self.bug == "solidus_escape_kept":
            text = re.sub(r"\\(.)", lambda found: "\\\\/" if found[1] == "/" else found[0], text, flags=re.S)
        parse_float = finite
        if self.bug == "exponent_ignored":
            parse_float = lambda number: finite(re.sub("[eE].*", "", number))
        value = json.loads(text, parse_float=parse_float, parse_constant=no_constant)
        level, depth = [value], 0
        while level:
            level = [item for part in level if isinstance(part, (dict, list))
                     for item in (part.values() if isinstance(part, dict) else part)]
            depth += 1
            if depth > 300:
                raise ValueError("nested too deeply")
        return value

    # connections --------------------------------------------------------

    def opened(self, conn):
        if len(self.conns) >= self.options.max_connections:
            conn.close(1013, "too many connections")
            return
        conn.id = self.new_id("conn")
        self.conns[conn.id] = conn
        text = "Welcome" if self.has("free_texts") else "Connected to EmProps Job Queue Hub"
        conn.send({"type": "connection_established", "message": text, "server_version": "1.0.0"})
        if self.has("hub_pings"):
            conn.proto.send_ping(b"")
            conn.flush()
            conn.send({"type": "ping"})

    def closed(self, conn):
        if conn.gone:
            return
        conn.gone = True
        self.conns.pop(conn.id, None)
        if conn.stats:
            conn.stats[2].cancel()
        for job_id in list(conn.job_subs):
            subscribers = self.job_subs.get(job_id, {})
            if self.bug == "leaver_skips_next" and conn in subscribers:
                order = list(subscribers)
                self.mem.setdefault("skip", {})[job_id] = (order[order.index(conn) + 1:] + [None])[0]
            subscribers.pop(conn, None)
            if self.bug == "subscriber_leaves_all_dropped":
                subscribers.clear()
        conn.job_subs.clear()
        conn.notifs.clear()
        if self.bug == "chunk_table_shared":
            for key in [key for key, entry in conn.chunks.items() if entry["by"] is conn]:
                self.drop_chunks(conn, key)
        else:
            self.drop_chunks(conn)
        if self.bug == "old_connection_takes_worker":
            for worker_id in conn.mem.get("worker_ids", ()):
                self.workers.pop(worker_id, None)
        if self.mem.get("lock") in conn.workers:
            del self.mem["lock"]
        if self.bug == "monitor_leaves_no_alerts" and conn.client_type == "monitor":
            for other in self.conns.values():
                if other.client_type == "monitor":
                    other.mem["no_alerts"] = True
        for job in self.jobs.values():
            if job.owner is conn:
                job.owner = None
                job.owner_gone = True
            elif (self.bug == "namesake_leaves" and job.owner is not None and conn.client_id is not None
                  and job.owner.client_id == conn.client_id):
                job.owner = None
        for worker in list(conn.workers.values()):
            if self.workers.get(self.worker_key(worker.id)) is worker:
                del self.workers[self.worker_key(worker.id)]
            if self.has("keep_on_disconnect"):
                if worker.jobs:
                    self.left[worker.id] = worker
            else:
                for job in list(worker.jobs.values()):
                    self.requeue(job, "Worker disconnected", silent=self.bug == "lost_worker_not_reported")

    def receive(self, conn, text):
        """Serve one text message. Nothing a client sends may end the hub."""
        try:
            message = self.decode(text)
        except (ValueError, RecursionError):
            if self.bug in ("ping_after_malformed", "malformed_hits_next_submitter"):
                conn.mem["malformed"] = True
            self.refuse(conn, {}, Refused("Message is not valid JSON", "INVALID_JSON"))
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str) \
                or (self.bug == "type_last" and len(message) > 1 and list(message)[-1] == "type"):
            self.refuse(conn, message if isinstance(message, dict) else {},
                        Refused("Message has no type", "INVALID_MESSAGE"))
            return
        self.dispatch(conn, message, text)

    def dispatch(self, conn, message, text):
        kind = message["type"]
        if self.bug == "ack_id_of_other" and isinstance(message.get("id"), str):
            self.mem["ids"] = {**dict(list(self.mem.get("ids", {}).items())[-50:]), conn.id: message["id"]}
        try:
            if self.has("strict_timestamp") and not is_number(message.get("timestamp")):
                raise Refused("timestamp is missing", "INVALID_MESSAGE", {"field": "timestamp"})
            if self.has("strict_registration") and not conn.registered and kind not in BEFORE_REGISTRATION:
                raise Refused("Register first", "NOT_REGISTERED")
            handler = self.handlers.get(kind)
            if self.bug == "escaped_type" and ('"%s"' % kind) not in text:
                handler = None
            if self.bug == "connector_status_unknown" and kind == "connector_ws_status" and message.get("status") != "connected":
                handler = None
            if handler is None:
                self.answer_unknown(conn, message, text)
                return
            handler(conn, message)
            if kind in ("ping", "pong", "ack", "disconnect"):
                return
            if isinstance(message.get("id"), str) and (kind not in OWN_ANSWER or self.has("ack_all")):
                self.ack(conn, message)
        except Refused as refused:
            self.refuse(conn, message, refused)
        except Exception:       # a fault of the hub must not end it
            traceback.print_exc()
            self.refuse(conn, message, Refused("Internal error", "INTERNAL_ERROR"))

    def answer_unknown(self, conn, message, text):
        if self.bug == "stale_original_message":
            text = conn.mem.setdefault("unknown", text)
        if self.has("reserialised"):
            text = json.dumps(message)
        content = "What is this?" if self.has("free_texts") else "Received unrecognized message type"
        conn.send({"type": "unknown", "content": content, "original_message": text})

    def ack(self, conn, message):
        if self.has("no_ack"):
            return
        message_id = message.get("id")
        if self.bug == "ack_id_of_other":
            others = [value for key, value in self.mem.get("ids", {}).items() if key != conn.id and key in self.conns]
            message_id = others[-1] if others else message_id
        answer = {"type": "ack", "original_type": message["type"], "status": "processed"}
        if message_id is not None:
            answer["message_id"] = message_id
        conn.send(answer)

    def refuse(self, conn, message, refused):
        text, code = refused.text, refused.code
        if self.has("free_texts"):
            text = "Not possible: " + text.lower()
            if code not in ("INVALID_PARAMETERS", "AUTH_FAILED"):
                code = "E_" + code
        answer = {"type": "error", "error": text, "error_code": code, "details": refused.details}
        request_id = message.get("id") if isinstance(message.get("id"), str) else None
        if self.bug == "stale_request_id":
            if request_id is None:
                request_id = conn.mem.get("request_id")
            conn.mem["request_id"] = request_id
        if self.bug == "request_id_32" and request_id is not None:
            request_id = request_id[:32]
        if self.bug == "worker_error_without_request_id" and refused.code == "WORKER_NOT_FOUND":
            request_id = None
        if request_id is not None:
            answer["request_id"] = request_id
        if self.bug == "cancel_error_without_code" and message.get("type") == "cancel_job":
            del answer["error_code"]
        conn.send(answer)

    # registration -------------------------------------------------------

    def on_register_client(self, conn, message):
        client_id = message.get("client_id")
        client_type = message.get("client_type", "job_client")
        if not isinstance(client_id, str):
            raise invalid("client_id", "Must be a string", client_id)
        if not isinstance(client_type, str):
            raise invalid("client_type", "Must be a string", client_type)
        conn.client_id, conn.client_type, conn.registered = client_id, client_type, True
        answer = {"type": "client_registered", "client_id": client_id, "status": "registered",
                  "assigned_connection_id": conn.id}
        if self.bug == "monitor_without_connection_id" and client_type == "monitor" and any(
                other.client_type == "monitor" for other in self.conns.values() if other is not conn):
            del answer["assigned_connection_id"]
        if self.bug == "connection_id_per_client":
            names = self.mem.setdefault("names", collections.OrderedDict())
            answer["assigned_connection_id"] = names.setdefault(client_id, conn.id)
            if len(names) > 1000:
                names.popitem(last=False)
        conn.send(answer)
        kept = self.kept.pop(client_id, None)
        if kept:
            for job_id in kept[0]:
                if job_id in self.jobs:
                    self.add_job_sub(conn, job_id)
            conn.notifs.extend(kept[1])

    def worker_key(self, worker_id):
        return worker_id[:32] if self.bug == "worker_prefix_32" else worker_id

    def take_capabilities(self, worker, message):
        capabilities = message.get("capabilities")
        if capabilities is None:
            return
        if not isinstance(capabilities, dict):
            raise invalid("capabilities", "Must be an object", capabilities)
        worker.updates += 1
        if self.bug == "capabilities_first_update_only" and worker.updates > 2:
            return
        worker.capabilities = {**worker.capabilities, **capabilities}

    def on_register_worker(self, conn, message):
        worker_id = message.get("worker_id")
        if not isinstance(worker_id, str):
            raise invalid("worker_id", "Must be a string", worker_id)
        if self.options.worker_token and message.get("token") != self.options.worker_token:
            raise Refused("Authentication failed", "AUTH_FAILED",
                          {"reason": "Invalid worker token", "worker_id": worker_id})
        key = self.worker_key(worker_id)
        if key not in conn.workers and len(conn.workers) >= 100:
            raise Refused("Too many workers on this connection", "LIMIT_EXCEEDED")
        worker = Worker(worker_id, conn)
        self.take_capabilities(worker, message)
        if self.bug == "old_services_remembered" and is_texts(worker.capabilities.get("services")):
            known = self.mem.setdefault("services", {}).setdefault(worker_id, [])
            known.extend(name for name in worker.capabilities["services"] if name not in known)
            worker.capabilities["services"] = list(known)
        before = self.workers.get(key) or self.left.pop(worker_id, None)
        if before is not None:          # the last registration of an id counts
            before.conn.workers.pop(key, None)
            worker.jobs = before.jobs
            for job in worker.jobs.values():
                job.worker = worker
        worker.notify = message.get("subscribe_to_jobs") is True
        if isinstance(message.get("status"), str):
            worker.status = message["status"]
        self.workers[key] = conn.workers[key] = worker
        conn.mem.setdefault("worker_ids", set()).add(key)
        conn.registered = True
        conn.send({"type": "worker_registered", "worker_id": worker_id, "status": "registered",
                   "assigned_connection_id": "worker-" + conn.id})

    def worker_of(self, conn, message):
        worker_id = message.get("worker_id")
        if worker_id is None and len(conn.workers) == 1:
            return next(iter(conn.workers.values()))
        worker = conn.workers.get(self.worker_key(worker_id)) if isinstance(worker_id, str) else None
        if worker is None:
            raise Refused("Worker is not registered on this connection", "WORKER_NOT_FOUND", {"worker_id": worker_id})
        return worker

    # jobs ---------------------------------------------------------------

    def job_of(self, message):
        job_id = message.get("job_id")
        job = self.jobs.get(job_id) if isinstance(job_id, str) else None
        if job is None:
            raise Refused("Job not found", "JOB_NOT_FOUND", {"job_id": job_id})
        return job

    def check_job(self, message):
        job_type = message.get("job_type")
        if not isinstance(job_type, str):
            raise invalid("job_type", "Must be a string", job_type)
        priority = message.get("priority", 50)
        if self.bug == "priority_zero" and not priority:
            priority = 50
        if not is_number(priority):
            raise invalid("priority", "Must be a number", priority)
        customer_id = message.get("customer_id")
        if customer_id is not None and not isinstance(customer_id, str):
            raise invalid("customer_id", "Must be a string", customer_id)
        requirements = message.get("requirements", {})
        if requirements is None:
            requirements = {}
        if not isinstance(requirements, dict):
            raise invalid("requirements", "Must be an object", requirements)
        for name in ("service_type", "component"):
            if requirements.get(name) is not None and not isinstance(requirements[name], str):
                raise invalid("requirements." + name, "Must be a string", requirements[name])
        hardware = requirements.get("hardware")
        if hardware is not None:
            if not isinstance(hardware, dict):
                raise invalid("requirements.hardware", "Must be an object", hardware)
            memory = hardware.get("gpu_memory_gb")
            if memory is not None and not (is_number(memory) and memory > 0):
                raise invalid("requirements.hardware.gpu_memory_gb", "Must be a positive number", memory)
        if self.bug == "extra_members_refused":
            for name in message:
                if name not in DOCUMENTED_SUBMIT:
                    raise invalid(name, "Unknown member", message[name])
        return {"job_type": job_type, "priority": priority, "payload": message.get("payload", {}),
                "customer_id": customer_id, "requirements": requirements}

    def add_job(self, owner, fields):
        size = len(json.dumps(fields))
        if len(self.jobs) - len(self.finished) >= self.options.max_jobs or self.bytes + size > self.options.max_bytes:
            raise Refused("Queue is full", "QUEUE_FULL")
        job = Job(self.new_id("job"), self.counter, owner, fields, size)
        self.bytes += size
        self.jobs[job.id] = self.queued[job.id] = job
        return job

    def announce(self, job):
        """job_available to workers; returns how many were told."""
        told = 0
        for worker in list(self.workers.values()):
            if not worker.notify:
                continue
            if not self.has("notify_all") and not self.able(worker, job):
                continue
            if self.has("notify_idle_only") and worker.status != "idle":
                continue
            told += 1
            if self.bug == "fourth_worker_not_notified" and told > 3:
                continue
            if self.bug == "not_told_after_empty_claim" and worker.waiting:
                continue
            summary = {}
            if job.requirements.get("service_type") is not None:
                summary["service_type"] = job.requirements["service_type"]
            memory = (job.requirements.get("hardware") or {}).get("gpu_memory_gb")
            if memory is not None:
                summary["gpu_memory_min"] = memory
            if self.bug == "reannounced_without_summary" and job.attempts:
                summary = {}
            worker.conn.send({"type": "job_available", "job_id": job.id, "job_type": job.job_type,
                              "priority": job.priority, "requirements_summary": summary})
        return told

    def time_text(self, ms):
        return iso(ms)[:-1] + ".%03d+00:00" % (ms % 1000) if self.has("iso_offset") else iso(ms)

    def on_submit_job(self, conn, message):
        fields = self.check_job(message)
        if self.bug == "malformed_hits_next_submitter":
            for other in self.conns.values():
                if other is not conn and other.mem.pop("malformed", False):
                    raise Refused("Message is not valid JSON", "INVALID_JSON")
        if self.bug == "sixth_of_burst_unanswered":
            times = conn.mem.setdefault("submits", [])
            times[:] = [moment for moment in times if time.monotonic() - moment < 0.2] + [time.monotonic()]
            if len(times) == 6:
                return
        if self.bug == "resubmission_same_id":
            known = conn.mem.get("cancelled", {}).get(json.dumps(fields, sort_keys=True))
            if known:
                conn.send({"type": "job_accepted", "job_id": known, "status": "queued", "position": 1,
                           "estimated_start": iso(now_ms()), "notified_workers": 0})
                return
        job = self.add_job(conn, fields)
        conn.mem["count"] = conn.mem.get("count", 0) + 1
        job.sticky = self.bug == "sixth_assigned_twice" and conn.mem["count"] % 6 == 0
        ahead = sum(1 for other in self.queued.values() if other is not job and other.priority >= job.priority)
        told = self.announce(job)
        conn.send({"type": "job_accepted", "job_id": job.id, "status": "queued",
                   "position": ahead + (0 if self.has("position_from_zero") else 1),
                   "estimated_start": self.time_text(now_ms() + 30000 * (ahead + 1)), "notified_workers": told})
        self.report(job, None, owner=False)

    def on_request_job_status(self, conn, message):
        job = self.job_of(message)
        message_id = message.get("id")
        if self.bug == "status_answer_by_message_id" and isinstance(message_id, str):
            cache = self.mem.setdefault("answers", collections.OrderedDict())
            key, answered = message_id, cache.get(message_id)
            if answered and answered[0] is not conn:
                conn.send(dict(answered[1]))
                return
        answer = {"type": "response_job_status", "job_id": job.id, "status": job.status}
        if job.progress is not None:
            answer["progress"] = job.progress
        if job.worker is not None:
            answer["worker_id"] = job.worker.id
            if self.bug == "status_keeps_first_worker" and job.first_worker is not None:
                answer["worker_id"] = job.first_worker
        if job.started_at is not None:
            answer["started_at"] = job.started_at
        if job.estimate is not None:
            answer["estimated_completion"] = job.estimate
        text = job.message if job.message is not None and not self.has("free_texts") else "Job is " + job.status
        answer["message"] = text
        if self.bug == "status_answer_by_message_id" and isinstance(message_id, str):
            cache[key] = (conn, dict(answer))
            if len(cache) > 200:
                cache.popitem(last=False)
        if self.bug == "status_query_eats_update" and job.owner is not None and job.owner is not conn:
            job.owner.mem["eat"] = job.id
        conn.send(answer)

    def on_cancel_job(self, conn, message):
        job = self.job_of(message)
        if job.status in ("completed", "failed", "cancelled"):
            raise Refused("Job has ended", "JOB_NOT_CANCELLABLE", {"job_id": job.id, "status": job.status})
        conn.mem["cancels"] = conn.mem.get("cancels", 0) + 1
        moment = now_ms()
        target = job.owner if self.bug == "cancel_confirmed_to_owner" and job.owner is not None else conn
        target.send({"type": "job_cancelled", "job_id": job.id, "status": "cancelled", "cancelled_at": moment,
                   "timestamp": moment})
        if self.bug == "second_cancel_not_done" and conn.mem["cancels"] > 1:
            return
        if self.bug == "resubmission_same_id":
            known = conn.mem.setdefault("cancelled", {})
            if len(known) < 100:
                known[json.dumps(job.fields, sort_keys=True)] = job.id
        previous = job.status
        job.message = message.get("reason") if isinstance(message.get("reason"), str) else None
        holder = job.worker if previous != "queued" else None
        self.end(job, "cancelled")
        told = self.watchers(job)
        for watcher in told:
            if watcher is not conn and self.bug != "no_update_on_cancel":
                watcher.send(self.update_of(job, previous))
        if self.has("worker_told_of_cancel") and holder is not None and holder.conn not in told + [conn]:
            holder.conn.send(self.update_of(job, previous))

    def end(self, job, status):
        job.status = status
        self.queued.pop(job.id, None)
        self.release(job)
        self.finished.append(job.id)
        while len(self.finished) > self.options.max_finished:
            old = self.jobs.pop(self.finished.popleft(), None)
            if old is not None:
                self.bytes -= old.size
                for conn in self.job_subs.pop(old.id, {}):
                    conn.job_subs.pop(old.id, None)

    def release(self, job):
        if job.deadline is not None:
            if self.bug != "old_claim_timer_fires":
                job.deadline.cancel()
            job.deadline = None
        if job.worker is not None:
            job.worker.jobs.pop(job.id, None)

    def requeue(self, job, text, delay=0, silent=False):
        previous = job.status
        self.release(job)
        job.status, job.worker, job.message = "queued", None, text
        job.progress = job.started_at = job.estimate = None
        job.ready = delay <= 0
        self.queued[job.id] = job
        if self.bug == "previous_status_retry":
            previous = "assigned"
        if not silent:
            self.report(job, previous)
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self.make_ready, job)
        else:
            self.announce(job)

    def make_ready(self, job):
        if self.bug == "cancelled_in_retry_returns" and job.status == "cancelled" and not job.ready:
            job.status = "queued"
            self.queued[job.id] = job
        if job.status == "queued" and not job.ready:
            job.ready = True
            self.announce(job)

    # job notifications --------------------------------------------------

    def selects(self, filters, job, ended):
        if self.bug == "last_filter_wins":
            filters = self.mem.get("filters", filters)
        customer = filters.get("customer_id")
        if customer is not None and customer != job.customer_id:
            if not (self.bug == "customer_case" and job.customer_id is not None
                    and customer.casefold() == job.customer_id.casefold()):
                return False
        if filters.get("job_types") is not None and job.job_type not in filters["job_types"]:
            if not (self.bug == "job_type_substring" and any(name in job.job_type for name in filters["job_types"])):
                return False
        if filters.get("priority_min") is not None and job.priority < filters["priority_min"]:
            if not (ended and self.bug == "completed_ignores_priority_min"):
                return False
        return filters.get("status") is None or job.status in filters["status"]

    def watchers(self, job, owner=True, ended=False):
        found = {}
        if owner and job.owner is not None:
            target = job.owner
            if self.bug == "completed_to_namesake" and ended and target.client_id is not None:
                target = [conn for conn in self.conns.values() if conn.client_id == target.client_id][-1]
            if self.bug == "status_query_eats_update" and target.mem.get("eat") == job.id:
                del target.mem["eat"]
            else:
                found[target] = True
        if self.bug == "submitter_gone_no_updates" and job.owner_gone:
            return []
        skipped = self.mem.get("skip", {}).pop(job.id, None)
        for conn in self.job_subs.get(job.id, {}):
            if conn is not skipped:
                found[conn] = True
        for conn in self.conns.values():
            if any(self.selects(filters, job, ended) for _, filters in conn.notifs):
                found[conn] = True
        return list(found)

    def update_of(self, job, previous):
        message = {"type": "job_update", "job_id": job.id, "status": job.status}
        if previous is not None:
            message["previous_status"] = previous
        if job.worker is not None:
            message["worker_id"] = job.worker.id
            if self.bug == "update_worker_of_last_claim":
                message["worker_id"] = self.mem["last_worker"]
        if job.progress is not None:
            message["progress"] = job.progress
            if self.bug == "progress_fraction":
                message["progress"] = int(job.progress)
        text = job.message if job.message is not None and not self.has("free_texts") else "Job is " + job.status
        message["message"] = text
        return message

    def report(self, job, previous, skip=None, owner=True):
        for conn in self.watchers(job, owner):
            if conn is not skip:
                conn.send(self.update_of(job, previous))

    # workers ------------------------------------------------------------

    def able(self, worker, job):
        need, have = job.requirements, worker.capabilities
        services = have.get("services") if is_texts(have.get("services")) else []
        components = have.get("components") if is_texts(have.get("components")) else []
        if self.bug == "second_service_ignored":
            services = services[:1]
        if need.get("service_type") is not None and need["service_type"] not in services:
            return False
        if need.get("component") is not None and need["component"] not in components:
            if not (self.bug == "component_unchecked" and len(services) >= 2):
                return False
        memory = (need.get("hardware") or {}).get("gpu_memory_gb")
        if memory is not None:
            if self.bug == "gpu_fraction":
                memory = math.floor(memory)
            hardware = have.get("hardware") if isinstance(have.get("hardware"), dict) else {}
            present = hardware.get("gpu_memory_gb")
            if not is_number(present) or present < memory:
                return False
        return True

    def on_claim_job(self, conn, message):
        worker = self.worker_of(conn, message)
        max_jobs = message.get("max_jobs", 1)
        if self.bug == "claim_lock_leak":
            lock = self.mem.setdefault("lock", worker.id)
            if lock != worker.id:
                raise Refused("No job for this worker", "NO_JOBS_AVAILABLE", {"worker_id": worker.id})
        if self.bug == "integral_fraction_refused" and isinstance(max_jobs, float):
            raise invalid("max_jobs", "Must be a positive integer", max_jobs)
        if not is_number(max_jobs) or max_jobs < 1 or max_jobs != int(max_jobs):
            raise invalid("max_jobs", "Must be a positive integer", max_jobs)
        timeout = message.get("claim_timeout", self.options.claim_timeout)
        if not is_number(timeout) or timeout <= 0:
            raise invalid("claim_timeout", "Must be a positive number", timeout)
        preferred = message.get("preferred_types")
        if preferred is not None and not is_texts(preferred):
            raise invalid("preferred_types", "Must be a list of strings", preferred)
        self.mem.pop("lock", None)
        if self.bug == "max_jobs_exceeded" and max_jobs >= 2:
            max_jobs += 1

        def rank(job):
            return (bool(preferred) and job.job_type not in preferred,
                    0 if self.has("fifo") else -job.priority,
                    -job.seq if self.has("newest_first") else job.seq)

        blocked = set()
        if self.bug == "unaccepted_blocks_customer":
            blocked = {job.customer_id for job in self.jobs.values()
                       if job.status == "assigned" and job.deadline is not None and job.worker is not worker}
            blocked.discard(None)
        found = []
        for job in list(self.queued.values()):
            if not job.ready or job.hidden or job.customer_id in blocked:
                continue
            if self.able(worker, job):
                found.append(job)
            elif self.bug == "weak_claim_hides_job":
                job.hidden = True
        found.sort(key=rank)
        found = found[:int(max_jobs)]
        worker.waiting = not found
        if not found and not self.has("silent_no_jobs"):
            raise Refused("No job for this worker", "NO_JOBS_AVAILABLE", {"worker_id": worker.id})
        for job in found:
            self.assign(worker, job, timeout)

    def assign(self, worker, job, timeout):
        self.release(job)
        if not job.sticky:
            self.queued.pop(job.id, None)
        job.sticky = False
        job.status, job.worker, job.message = "assigned", worker, None
        job.first_worker = job.first_worker or worker.id
        job.attempts += 1
        worker.jobs[job.id] = job
        self.mem["last_worker"] = worker.id
        job.deadline = asyncio.get_running_loop().call_later(min(timeout, 86400000) / 1000, self.expire, job)
        worker.conn.send({"type": "job_assigned", "job_id": job.id, "worker_id": worker.id,
                          "job_type": job.job_type, "priority": job.priority,
                          "payload": self.payload_of(job), "requirements": job.requirements,
                          "claim_timeout": timeout})

    def payload_of(self, job):
        bug, payload = self.bug, job.payload
        if bug == "nul_stripped":
            return walk(payload, lambda x: x.replace("\0", "") if isinstance(x, str) else x)
        if bug == "null_dropped":
            return drop_members(payload, lambda key, item: item is None)
        if bug == "prototype_names":
            return drop_members(payload, lambda key, item: key in ("__proto__", "constructor", "toString"))
        if bug == "long_string_cut":
            return walk(payload, lambda x: x[:65535] if isinstance(x, str) else x)
        if bug == "numeric_text":
            return walk(payload, lambda x: float(x) if isinstance(x, str) and re.fullmatch(r"\d+(\.\d+)?", x) else x)
        if bug == "int32_wrap":
            return walk(payload, lambda x: (x + 2 ** 31) % 2 ** 32 - 2 ** 31
                        if isinstance(x, int) and not isinstance(x, bool) else x)
        if bug == "empty_object_becomes_list":
            return lists_for_empty(payload) if payload else payload
        if bug == "iso_strings_normalised":
            return walk(payload, lambda x: in_utc(x) if isinstance(x, str) else x)
        if bug == "deep_payload_as_text":
            return text_below(payload, 16)
        return payload

    def expire(self, job):
        if job.status == "assigned":
            job.deadline = None
            self.requeue(job, "Claim timed out")

    def held_job(self, worker, message):
        job = self.job_of(message)
        if self.bug == "foreign_fail_accepted" and message["type"] == "fail_job" \
                and job.status in ("assigned", "in_progress"):
            return job
        if job.worker is not worker or job.status not in ("assigned", "in_progress"):
            raise Refused("Job is not assigned to this worker", "JOB_NOT_ASSIGNED",
                          {"job_id": job.id, "worker_id": worker.id})
        return job

    def on_job_accepted_by_worker(self, conn, message):
        worker = self.worker_of(conn, message)
        job = self.held_job(worker, message)
        if job.deadline is None:
            return
        job.deadline.cancel()
        job.deadline = None
        if isinstance(message.get("estimated_completion"), str):
            job.estimate = message["estimated_completion"]
        if self.has("started_at_acceptance"):
            job.started_at = job.started_at or now_ms()
        if job.status == "assigned":
            self.report(job, "queued")

    def on_update_job_progress(self, conn, message):
        worker = self.worker_of(conn, message)
        job = self.held_job(worker, message)
        progress = message.get("progress")
        if progress is not None and not (is_number(progress) and 0 <= progress <= 100):
            raise Refused("Invalid progress", "INVALID_PARAMETERS",
                          {"field": "progress", "message": "Must be a number from 0 to 100",
                           "provided_value": progress})
        if self.bug == "progress_to_first_job":
            job = next(iter(worker.jobs.values()))
        if job.deadline is not None:
            job.deadline.cancel()
            job.deadline = None
        previous, job.status = job.status, "in_progress"
        job.started_at = job.started_at or now_ms()
        if progress is not None:
            job.progress = progress
        if isinstance(message.get("message"), str) and (message["message"] or self.bug != "empty_message_keeps_last"):
            job.message = message["message"]
        if isinstance(message.get("estimated_completion"), str):
            job.estimate = message["estimated_completion"]
        if self.bug == "no_progress_after_retry" and job.attempts > 1:
            return
        if self.bug == "progress_throttled_by_worker":
            last = worker.last_report
            if last is not None and last[0] != job.id and time.monotonic() - last[1] < 0.2:
                return
            worker.last_report = (job.id, time.monotonic())
        self.report(job, previous)

    def on_complete_job(self, conn, message):
        worker = self.worker_of(conn, message)
        job = self.held_job(worker, message)
        named = next(iter(worker.jobs)) if self.bug == "completed_ack_first_job" else job.id
        result = message.get("result", {})
        seconds = message.get("processing_time")
        if self.has("short_result") and isinstance(result, dict):
            result = {key: result[key] for key in ("success", "output_files") if key in result}
        if self.bug == "html_escaped" and isinstance(result, dict) and "output_files" in result:
            result = {**result, "output_files": walk(result["output_files"], lambda x: x.replace(
                "&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") if isinstance(x, str) else x)}
        if self.bug == "success_false" and isinstance(result, dict):
            result = {**result, "success": result.get("success") or True}
        if self.bug == "processing_time_zero":
            seconds = seconds or None
        previous = job.status
        self.end(job, "completed")
        self.completed_times.append(time.monotonic())
        conn.send({"type": "job_completed_ack", "job_id": named, "worker_id": worker.id})
        if self.has("completed_update_too"):
            self.report(job, previous)
        for number, watcher in enumerate(self.watchers(job, ended=True)):
            notice = {"type": "job_completed", "job_id": job.id, "status": "completed", "worker_id": worker.id,
                      "priority": job.priority, "result": result}
            if "processing_time" in message:
                notice["processing_time"] = seconds
            if self.bug == "result_first_watcher_only" and number:
                del notice["result"]
            watcher.send(notice)
        if self.bug == "completion_requeues_other":
            for other in list(worker.jobs.values()):
                self.release(other)
                other.status, other.worker = "queued", None
                self.queued[other.id] = other

    def on_fail_job(self, conn, message):
        worker = self.worker_of(conn, message)
        job = self.held_job(worker, message)
        retry = message.get("retry") is True and job.attempts <= self.options.max_retries
        named = worker.id
        if self.bug == "failed_ack_first_worker":
            job.first_failed = job.first_failed or worker.id
            named = job.first_failed
        delay = self.options.retry_delay * (2 ** min(job.attempts - 1, 20) if self.has("retry_backoff") else 1)
        conn.send({"type": "job_failed_ack", "job_id": job.id, "worker_id": named, "retry_scheduled": retry,
                   "retry_delay": delay if retry else 0})
        text = message.get("error") if isinstance(message.get("error"), str) else "Job failed"
        if retry:
            self.requeue(job, text, delay)
            return
        previous = job.status
        job.message = text
        self.end(job, "failed")
        if self.bug == "failed_counted_completed":
            self.completed_times.append(time.monotonic())
        if self.bug != "no_update_on_failure":
            self.report(job, previous)

    def on_worker_heartbeat(self, conn, message):
        worker = self.worker_of(conn, message)
        if isinstance(message.get("status"), str):
            worker.status = message["status"]
        listed = message.get("current_jobs")
        if self.bug == "heartbeat_first_job_only" and is_texts(listed) and len(listed) > 1:
            for job in [job for job in worker.jobs.values() if job.status == "in_progress" and job.id != listed[0]]:
                self.requeue(job, "Worker no longer has the job")
        moment = now_ms()
        conn.send({"type": "worker_heartbeat_ack", "worker_id": worker.id, "status": "acknowledged",
                   "next_heartbeat_expected": moment + round(self.options.heartbeat * 1000), "timestamp": moment})

    def on_worker_status(self, conn, message):
        worker = self.worker_of(conn, message)
        self.take_capabilities(worker, message)
        if isinstance(message.get("status"), str):
            worker.status = message["status"]

    def on_connector_ws_status(self, conn, message):
        self.worker_of(conn, message)

    def on_service_request(self, conn, message):
        pass

    # subscriptions ------------------------------------------------------

    def add_job_sub(self, conn, job_id):
        conn.job_subs[job_id] = True
        subscribers = self.job_subs.setdefault(job_id, {})
        subscribers[conn] = True
        if self.bug == "fifth_subscriber_evicts_first" and len(subscribers) == 5:
            del subscribers[next(iter(subscribers))]
        if self.bug == "third_subscription_drops_first" and len(conn.job_subs) == 3:
            first = next(iter(conn.job_subs))
            self.job_subs.get(first, {}).pop(conn, None)

    def on_subscribe_job(self, conn, message):
        job = self.job_of(message)
        if job.id not in conn.job_subs and len(conn.job_subs) >= self.options.max_subscriptions:
            raise Refused("Too many subscriptions", "LIMIT_EXCEEDED")
        self.add_job_sub(conn, job.id)
        if not self.has("subscribe_job_ack"):
            conn.send({"type": "subscription_confirmed", "subscription_type": "job", "job_id": job.id})
        elif not self.has("ack_all"):
            self.ack(conn, message)
        if self.has("initial_snapshot"):
            conn.send(self.update_of(job, None))

    def on_subscribe_job_notifications(self, conn, message):
        if message.get("enabled") is False:
            conn.notifs.clear()
            if self.bug == "notifications_off_last_only" and conn.mem.get("replaced"):
                conn.notifs.extend(conn.mem["replaced"].pop())
            conn.send({"type": "subscription_confirmed", "subscription_type": "job_notifications", "enabled": False})
            return
        filters = message.get("filters")
        filters = {} if filters is None else filters
        if not isinstance(filters, dict):
            raise invalid("filters", "Must be an object", filters)
        for name, fits in (("customer_id", lambda x: isinstance(x, str)), ("job_types", is_texts),
                           ("priority_min", is_number), ("status", is_texts)):
            if filters.get(name) is not None and not fits(filters[name]):
                raise invalid("filters." + name, "Has the wrong type", filters[name])
        subscription = self.new_id("sub")
        if not self.has("additive_filters"):
            if self.bug == "notifications_off_last_only" and conn.notifs:
                conn.mem.setdefault("replaced", []).append(list(conn.notifs))
                del conn.mem["replaced"][:-50]
            conn.notifs.clear()
        conn.notifs.append((subscription, filters))
        del conn.notifs[:-50]
        self.mem["filters"] = filters
        applied = filters
        if self.has("filters_short"):
            applied = {name: filters[name] for name in ("customer_id", "job_types") if name in filters}
        conn.send({"type": "job_notifications_subscribed", "subscription_id": subscription,
                   "filters_applied": applied})

    def stats_message(self, sections=None):
        hour_ago = time.monotonic() - 3600
        statuses = collections.Counter(job.status for job in self.jobs.values())
        workers = len(self.workers)
        if self.bug == "equal_workers_counted_once":
            workers = len({json.dumps(worker.capabilities.get("services")) for worker in self.workers.values()})
        message = {"type": "system_status"}
        every = not self.has("stats_sections") or not sections
        if every or "workers" in sections:
            message["active_workers"] = workers
        if every or "jobs" in sections:
            message["pending_jobs"] = statuses["queued"]
            message["active_jobs"] = statuses["assigned"] + statuses["in_progress"]
            message["completed_jobs_last_hour"] = sum(1 for moment in self.completed_times if moment > hour_ago)
        if every or "system" in sections:
            message["system_health"] = "degraded" if self.alerts else "healthy"
            message["alerts"] = list(self.alerts)
        return message

    def on_subscribe_stats(self, conn, message):
        interval = message.get("interval_seconds", 5)
        sections = message.get("include_sections")
        if not is_number(interval) or interval <= 0:
            raise invalid("interval_seconds", "Must be a positive number", interval)
        if sections is not None and not is_texts(sections):
            raise invalid("include_sections", "Must be a list of strings", sections)
        if interval < self.options.min_interval:
            interval = self.options.min_interval
        if message.get("enabled") is False:
            affected = [conn]
            if self.bug == "stats_off_for_all" and conn.stats:
                affected = [other for other in self.conns.values() if other.stats and other.stats[0] == conn.stats[0]]
            for other in affected:
                if other.stats:
                    other.stats[2].cancel()
                    other.stats = None
            conn.mem["stats_off"] = True
            conn.send({"type": "subscription_confirmed", "subscription_type": "stats", "enabled": False})
            return
        if conn.stats:
            conn.stats[2].cancel()
        if self.bug == "stats_by_client_id" and conn.client_id is not None:
            for other in self.conns.values():
                if other is not conn and other.client_id == conn.client_id and other.stats:
                    other.stats[2].cancel()
                    other.stats = None
        moment = now_ms()
        conn.send({"type": "subscription_confirmed", "subscription_type": "stats", "update_interval": interval,
                   "next_broadcast": moment + round(min(interval, 10 ** 9) * 1000), "timestamp": moment})
        if self.has("stats_at_once"):
            conn.send(self.stats_message(sections))
        pace = interval
        if self.bug == "stats_first_interval":
            pace = next((other.stats[0] for other in self.conns.values() if other.stats and other is not conn), pace)
        task = asyncio.ensure_future(self.broadcast(conn, min(pace, 86400), sections))
        conn.stats = (interval, sections, task)
        if self.bug == "stats_resubscribe_dead" and conn.mem.get("stats_off"):
            task.cancel()

    async def broadcast(self, conn, interval, sections):
        while not conn.gone:
            await asyncio.sleep(interval)
            conn.send(self.stats_message(sections))

    def on_request_stats(self, conn, message):
        sections = message.get("include_sections")
        if sections is not None and not is_texts(sections):
            raise invalid("include_sections", "Must be a list of strings", sections)
        conn.send(self.stats_message(sections))

    # large messages -----------------------------------------------------

    def drop_chunks(self, conn, key=None):
        for name in list(conn.chunks) if key is None else [key]:
            self.chunk_bytes -= conn.chunks.pop(name)["size"]

    def on_chunked_message(self, conn, message):
        chunk_id, index, total = message.get("chunk_id"), message.get("chunk_index"), message.get("total_chunks")
        data = message.get("data")
        if not isinstance(chunk_id, str) or not isinstance(data, str):
            raise Refused("Invalid chunk", "INVALID_CHUNK", {"field": "chunk_id or data"})
        if not is_number(total) or total != int(total) or not 1 <= total <= 10000:
            raise Refused("Invalid chunk", "INVALID_CHUNK", {"field": "total_chunks", "provided_value": total})
        if not is_number(index) or index != int(index) or not 0 <= index <= total:
            raise Refused("Invalid chunk", "INVALID_CHUNK", {"field": "chunk_index", "provided_value": index})
        try:
            part = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise Refused("Invalid chunk", "INVALID_CHUNK", {"field": "data"}) from None
        key = unicodedata.normalize("NFC", chunk_id) if self.bug == "chunk_ids_nfc" else chunk_id
        if self.bug == "chunk_id_burnt" and key in conn.mem.get("burnt", ()):
            return
        if self.bug == "chunk_table_shared":
            conn.chunks = self.mem.setdefault("chunks", {})
        if self.bug == "interleaved_chunks" and key not in conn.chunks:
            self.drop_chunks(conn)
        entry = conn.chunks.get(key)
        if entry is None:
            if len(conn.chunks) >= 16:
                raise Refused("Too many unfinished messages", "LIMIT_EXCEEDED")
            entry = conn.chunks[key] = {"total": int(total), "parts": {}, "size": 0, "by": conn}
        more = len(part) - len(entry["parts"].get(int(index), b""))
        entry["parts"][int(index)] = part
        entry["size"] += more
        self.chunk_bytes += more
        if entry["total"] != total or entry["size"] > self.options.max_assembled \
                or self.chunk_bytes > self.options.max_bytes:
            self.drop_chunks(conn, key)
            raise Refused("Chunks do not fit together", "INVALID_CHUNK", {"chunk_id": chunk_id})
        if len(entry["parts"]) < entry["total"]:
            return
        if self.bug == "open_chunks_block_others" and any(
                other.chunks for other in self.conns.values() if other is not conn):
            return
        self.drop_chunks(conn, key)
        parts = entry["parts"]
        order = parts if self.bug == "chunk_order" else sorted(
            parts, key=str if self.bug == "chunks_sorted_as_text" else None)
        whole = b"".join(parts[position] for position in order)
        wanted = message.get("data_hash")
        if wanted is not None and (not isinstance(wanted, str)
                                   or wanted.lower() != hashlib.sha256(whole).hexdigest()):
            conn.mem.setdefault("burnt", collections.deque(maxlen=100)).append(key)
            raise Refused("Hash of the data does not fit", "INVALID_CHUNK", {"chunk_id": chunk_id})
        try:
            text = whole.decode()
            assembled = self.decode(text)
        except (ValueError, RecursionError):
            raise Refused("Assembled data is not JSON", "INVALID_CHUNK", {"chunk_id": chunk_id}) from None
        conn.send({"type": "chunked_message_complete", "chunk_id": chunk_id, "total_size": len(whole),
                   "assembled_message": assembled})
        if not isinstance(assembled, dict):
            return
        inner = dict(assembled)
        inner.setdefault("type", message.get("original_type"))
        if isinstance(inner["type"], str) and inner["type"] != "chunked_message":
            self.dispatch(conn, inner, text)

    # connection ---------------------------------------------------------

    def on_ping(self, conn, message):
        if self.bug == "ping_after_malformed" and conn.mem.pop("malformed", False):
            return
        if self.bug == "no_pong_while_working" and any(worker.jobs for worker in conn.workers.values()):
            return
        answer = {"type": "pong"}
        if self.has("pong_echo") and is_number(message.get("timestamp")):
            answer["timestamp"] = message["timestamp"]
        conn.send(answer)

    def on_pong(self, conn, message):
        pass

    def on_ack(self, conn, message):
        pass

    def on_disconnect(self, conn, message):
        cleanup = message.get("cleanup_subscriptions") is not False
        if self.bug == "cleanup_ignored_on_return":
            cleanup = False
        if not cleanup and conn.client_id is not None and (conn.job_subs or conn.notifs):
            self.kept[conn.client_id] = (list(conn.job_subs), list(conn.notifs))
            if len(self.kept) > 1000:
                self.kept.popitem(last=False)
        if self.has("disconnect_left_open"):
            for job_id in conn.job_subs:
                self.job_subs.get(job_id, {}).pop(conn, None)
            conn.job_subs.clear()
            conn.notifs.clear()
            if conn.stats:
                conn.stats[2].cancel()
                conn.stats = None
            return
        conn.close(1000, "disconnect")

    def disconnect_all(self, reason, downtime):
        moment = now_ms()
        for conn in list(self.conns.values()):
            if not (self.bug == "workers_not_told" and conn.workers):
                conn.send({"type": "server_disconnect", "reason": reason,
                           "reconnect_after": moment + round(downtime * 1000),
                           "estimated_downtime": downtime, "timestamp": moment})
            conn.close(1001, "going away")

    # controls -----------------------------------------------------------

    def control_alert(self, body):
        message = {"type": "system_alert", "severity": body.get("severity", "warning"),
                   "category": body.get("category", "resource_constraint"),
                   "message": body.get("message", "Queue depth exceeding normal capacity"),
                   "details": body.get("details", {}),
                   "actions_recommended": body.get("actions_recommended", [])}
        self.alerts.append(message["message"])
        told = 0
        for conn in list(self.conns.values()):
            if (conn.client_type == "monitor" or conn.stats or self.has("alerts_to_all")) and not conn.mem.get("no_alerts"):
                stamp = now_ms() // 1000 if self.bug == "alert_seconds" and message["severity"] == "critical" else now_ms()
                conn.send({**message, "timestamp": stamp})
                told += 1
        return {"told": told}

    def control_clear_alerts(self, body):
        self.alerts.clear()
        return {"ok": True}

    def control_job(self, body):
        job = self.add_job(None, self.check_job(body))
        told = self.announce(job)
        self.report(job, None)
        return {"job_id": job.id, "notified_workers": told}

    def control_shutdown(self, body):
        reason, downtime = body.get("reason", "Server maintenance"), body.get("estimated_downtime", 60)
        if not isinstance(reason, str) or not is_number(downtime) or downtime < 0:
            raise invalid("reason or estimated_downtime", "Has the wrong type", None)
        told = len(self.conns)
        self.disconnect_all(reason, downtime)
        if body.get("exit") is True:
            asyncio.get_running_loop().call_later(0.2, self.stop.set)
        return {"told": told}

    def control_ping(self, body):
        for conn in list(self.conns.values()):
            conn.send({"type": "ping"})
        return {"told": len(self.conns)}

    def control_status(self, body):
        told = 0
        for conn in list(self.conns.values()):
            if conn.stats:
                conn.send(self.stats_message(conn.stats[1]))
                told += 1
        return {"told": told}

    def control_service_request(self, body):
        worker = self.workers.get(self.worker_key(str(body.get("worker_id"))))
        if worker is None:
            raise Refused("Worker is not registered", "WORKER_NOT_FOUND")
        worker.conn.send({**body, "type": "service_request", "worker_id": worker.id})
        return {"told": 1}

    def control(self, path, body):
        handler = getattr(self, "control_" + path.removeprefix("/control/").replace("-", "_"), None)
        if not path.startswith("/control/") or handler is None:
            return 404, {"error": "no such control"}
        try:
            return 200, handler(body)
        except Refused as refused:
            return 400, {"error": refused.text, "details": refused.details}


# --------------------------------------------------------------------------
# Network


async def serve_http(hub, reader, writer, start):
    """One POST request; the connection is closed after the answer."""
    data = start
    while b"\r\n\r\n" not in data and len(data) < 65536:
        more = await reader.read(65536)
        if not more:
            return
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    path = lines[0].split(" ")[1] if lines[0].count(" ") >= 2 else "/"
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length" and value.strip().isdigit():
            length = int(value.strip())
    if length > 1000000:
        status, answer = 413, {"error": "body too large"}
    else:
        while len(body) < length:
            more = await reader.read(65536)
            if not more:
                return
            body += more
        try:
            parsed = json.loads(body[:length] or b"{}", parse_constant=no_constant, parse_float=finite)
            if not isinstance(parsed, dict):
                raise ValueError("not an object")
            status, answer = hub.control(path.split("?")[0], parsed)
        except (ValueError, RecursionError):
            status, answer = 400, {"error": "body is not a JSON object"}
    text = json.dumps(answer).encode()
    words = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}[status]
    writer.write(("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                  "Connection: close\r\n\r\n" % (status, words, len(text))).encode() + text)
    await writer.drain()


async def serve_connection(hub, reader, writer):
    conn = None
    try:
        start = b""
        while len(start) < 5:
            more = await asyncio.wait_for(reader.read(65536), 10)
            if not more:
                return
            start += more
        if start.startswith(b"POST "):
            await asyncio.wait_for(serve_http(hub, reader, writer, start), 10)
            return
        conn = Conn(hub, writer)
        conn.feed(start)
        while conn.proto.state is not CLOSED:
            limit = None if conn.id else 10
            data = await asyncio.wait_for(reader.read(262144), limit)
            if not data:
                conn.proto.receive_eof()
                break
            conn.feed(data)
            await writer.drain()
    except (ConnectionError, asyncio.TimeoutError, EOFError):
        pass
    finally:
        if conn is not None:
            hub.closed(conn)
        writer.close()


async def periodic_pings(hub):
    while True:
        await asyncio.sleep(0.25)
        hub.control_ping({})
        for conn in list(hub.conns.values()):
            if conn.proto.state is OPEN:
                conn.proto.send_ping(b"hub")
                conn.flush()


async def run(options):
    hub = Hub(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hub.stop.set)
    server = await asyncio.start_server(lambda reader, writer: serve_connection(hub, reader, writer),
                                        "127.0.0.1", options.port)
    print("ws://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    pings = asyncio.ensure_future(periodic_pings(hub)) if hub.has("hub_pings") else None
    await hub.stop.wait()
    server.close()
    if pings:
        pings.cancel()
    hub.disconnect_all("Server shutdown", 60)
    deadline = loop.time() + 0.5
    while hub.conns and loop.time() < deadline:
        await asyncio.sleep(0.02)
    sys.stdout.flush()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description="A hub of the EmProps job queue.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bug", choices=BUG_NAMES, metavar="NAME")
    parser.add_argument("--variant", choices=VARIANT_NAMES, metavar="NAME", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print bugs and variants as JSON")
    parser.add_argument("--worker-token", default="", help="token that workers must send; empty: none")
    parser.add_argument("--heartbeat", type=float, default=60, help="seconds between heartbeats")
    parser.add_argument("--retry-delay", type=float, default=1, help="seconds before a failed job is queued again")
    parser.add_argument("--max-retries", type=int, default=3)
    parser.add_argument("--claim-timeout", type=float, default=30000, help="milliseconds, for claims without one")
    parser.add_argument("--min-interval", type=float, default=0.05, help="shortest stats interval in seconds")
    parser.add_argument("--max-message", type=int, default=10 * 1024 * 1024)
    parser.add_argument("--max-assembled", type=int, default=10 * 1024 * 1024 - 4096)
    parser.add_argument("--max-buffer", type=int, default=64 * 1024 * 1024, help="unread output per connection")
    parser.add_argument("--max-connections", type=int, default=2000)
    parser.add_argument("--max-subscriptions", type=int, default=1000, help="job subscriptions per connection")
    parser.add_argument("--max-jobs", type=int, default=20000)
    parser.add_argument("--max-finished", type=int, default=5000)
    parser.add_argument("--max-bytes", type=int, default=256 * 1024 * 1024, help="size of all jobs")
    options = parser.parse_args()
    if options.list:
        print(json.dumps(catalogue(), indent=1))
        return
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
