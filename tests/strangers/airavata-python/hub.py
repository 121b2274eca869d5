#!/usr/bin/env python3
"""A message hub that speaks the WebSocket protocol of the Airavata Scheduler.

The hub is correct by default. One planted bug (--bug) and any number of legal
variants (--variant) can be switched on. See README.md for the controls.
"""

import argparse
import asyncio
import base64
import collections
import datetime
import hashlib
import hmac
import json
import logging
import random
import re
import signal
import socket
import sys
import time
import unicodedata
import urllib.parse
import uuid

from websockets.datastructures import Headers
from websockets.exceptions import InvalidState, ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

# ---------------------------------------------------------------------------
# Planted bugs: name, kind, line of the document, sentence, what, how seen.

BUGS = [
    # history
    ("resubscribe-mute", "history", 517, "To subscribe to specific resources or events, send a subscription message.",
     "A second subscription to a resource, after an unsubscription by the same connection, is confirmed without effect.",
     "Subscribe, unsubscribe, subscribe again: the events of the resource do not arrive."),
    ("error-drops-subscriptions", "history", 579, "Events are sent to clients subscribed to the specific resource.",
     "A malformed message silently removes all earlier subscriptions of its connection.",
     "After an 'Invalid message format' error the events of the subscribed resource stop."),
    ("second-unknown-silent", "history", 658, "An unknown message type is answered with the error 'Unknown message type'.",
     "Only the first unknown message type of a connection is answered.", "The second message of an unknown type gets no error."),
    ("stale-project", "history", 569, "`project`: project-wide events, all experiments in project.",
     "Task events go to the project that the experiment had when it was first seen.",
     "After experiment_updated with another projectId, task events still go to the old project."),
    ("unsubscribe-first-blocks", "history", 517, "To subscribe to specific resources or events, send a subscription message.",
     "Unsubscribing from a resource that was not subscribed blocks a later subscription to it.", "Unsubscribe, then subscribe for the first time: no events."),
    ("muted-after-completed", "history", 567, "`experiment`: all experiment and task events.",
     "After experiment_completed, experiment subscribers get no more experiment events of this experiment.",
     "experiment_updated after experiment_completed does not arrive."),
    ("subscriptions-inherited", "history", 577, "Events are broadcast to clients based on their subscriptions.",
     "A new connection of a user takes over the subscriptions of the user's last closed connection.",
     "After a return, events arrive that the new connection did not subscribe to."),
    ("refusal-sticks", "history", 99, "Valid Token: connection established successfully.",
     "After an expired token, the next connection of the same user is refused although its token is valid.",
     "Expired token, then a valid token of the same user: 'Invalid or expired token'."),
    ("slot-leak", "history", 765, "Per User: 10 concurrent connections.",
     "A connection that ends without a Close frame keeps its slot in the user's limit.",
     "After ten abrupt ends, the user's next connection is refused though none is open."),
    ("ping-id-cached", "history", 34, "Message Acknowledgment: ping/pong mechanism for connection health.",
     "A ping whose id was already used on another connection is taken for a repetition and gets no pong.",
     "Two connections send a ping with the same id: the second one gets no pong."),
    ("heartbeat-once", "history", 697, "The server sends periodic ping messages to maintain connection health.",
     "A connection that answered a ping with a pong gets no further pings.", "No second ping after the client's first pong."),
    # several
    ("sixth-subscription-evicts", "several", 579, "Events are sent to clients subscribed to the specific resource.",
     "From the sixth subscription of a connection on, each new one removes the oldest.",
     "With eight subscriptions, the events of the first ones do not arrive."),
    ("unsubscribe-clears-all", "several", 579, "Events are sent to clients subscribed to the specific resource.",
     "An unsubscription removes all subscribers of the resource.", "One of two subscribers unsubscribes; the other one gets no more events."),
    ("disconnect-clears-resource", "several", 579, "Events are sent to clients subscribed to the specific resource.",
     "When a subscriber disconnects, the other subscribers of its resources are removed too.",
     "One of two subscribers disconnects; the other one gets no more events."),
    ("burst-reordered", "several", 595, "Events are delivered in the order they occur.",
     "In a burst of six or more events the fifth and the sixth change places.",
     "The order of the events in a burst differs from the order of their occurrence."),
    ("tenth-refused", "several", 765, "Per User: 10 concurrent connections.",
     "The tenth concurrent connection of a user is refused.", "Ten connections of one user: the last one is refused."),
    ("limit-per-endpoint", "several", 765, "Per User: 10 concurrent connections.",
     "The limit per user is counted for each endpoint type.", "An eleventh connection of a user is accepted when the endpoints are mixed."),
    ("project-last-experiment", "several", 569, "`project`: project-wide events, all experiments in project.",
     "Project subscribers get only the events of the project's most recent experiment.",
     "With two experiments in a project, events of the older one do not reach project subscribers."),
    ("first-system-subscriber", "several", 589, "Worker Event -> Worker Subscribers + System Subscribers.",
     "Worker events reach only one of the system subscribers.", "Of two system subscribers only the first one gets worker events."),
    ("unsubscribe-crosses-types", "several", 532, "To unsubscribe from resources or events, send the unsubscription of this resource type and id.",
     "An unsubscription removes the subscriptions of all resource types with the same id.",
     "Experiment x and task x subscribed, task x unsubscribed: events of experiment x stop."),
    ("burst-same-id", "several", 138, "`id`: unique message identifier.",
     "Events of one burst about the same resource have the same id.", "Two events of a burst carry the same message id."),
    # identity
    ("id-prefix-32", "identity", 579, "Events are sent to clients subscribed to the specific resource.",
     "Resource ids are compared by their first 32 characters.", "Events of another resource arrive whose id shares the first 32 characters."),
    ("id-case", "identity", 579, "Events are sent to clients subscribed to the specific resource.",
     "Resource ids are compared without regard to case.", "Events of resource EXP-a reach subscribers of exp-a."),
    ("id-unicode-form", "identity", 579, "Events are sent to clients subscribed to the specific resource.",
     "Resource ids are compared after Unicode normalisation.", "Events of an id in composed form reach subscribers of the decomposed form."),
    ("response-previous-id", "identity", 547, "The server responds to subscription requests (with the resource of the request).",
     "When the resource type differs from that of the request before, the response names the resource id of that request.",
     "A task is subscribed after an experiment: resourceId in the response is that of the experiment."),
    ("burst-first-id", "identity", 148, "Message IDs follow a specific format: task_{taskId}_{timestamp}.",
     "In a burst, message ids of task events name the task of the burst's first task event.", "Message id task_A_... on an event about task B."),
    ("user-prefix-match", "identity", 580, "Events are sent to clients subscribed to the user.",
     "User subscribers get events of all owners whose id begins with the subscribed user id.", "The subscriber of user-4 gets events of user-45."),
    ("limit-by-user-prefix", "identity", 765, "Per User: 10 concurrent connections.",
     "Users whose ids share their first eight characters share one limit.", "A user is refused because a similarly named user has ten connections."),
    ("limit-per-token", "identity", 765, "Per User: 10 concurrent connections.",
     "The limit is counted for each token instead of each user.", "A user with several tokens has more than ten connections."),
    ("summary-of-previous", "identity", 359, "The summary of task_updated describes the same task as data.task (id, experimentId, status, workerId).",
     "summary.workerId is that of the previous task_updated event about another task.",
     "data.summary.workerId differs from data.task.workerId when two tasks are updated in turn."),
    ("error-to-other", "identity", 648, "A malformed message is answered with the error 'Invalid message format'.",
     "With several connections of a user, the error goes to another connection of this user.",
     "The error arrives on the connection that did not send the malformed message."),
    # neighbours
    ("unsubscribe-for-user", "neighbours", 532,
     "To unsubscribe from resources or events, send an unsubscription message (on the connection concerned).",
     "An unsubscription also removes the subscription of all other connections of the same user.",
     "Another connection of the user gets no more events of the resource."),
    ("malformed-loses-next-event", "neighbours", 579, "Events are sent to clients subscribed to the specific resource.",
     "After a malformed message of any client, the next event is lost for all others.",
     "A subscriber misses the event that follows another client's malformed message."),
    ("stops-at-gone", "neighbours", 579, "Events are sent to clients subscribed to the specific resource.",
     "Delivery of an event stops at a subscriber that ended without a Close frame.",
     "Later subscribers miss the first event after another subscriber's abrupt end."),
    ("refused-counts", "neighbours", 765, "Per User: 10 concurrent connections.",
     "Attempts with an expired token take up the user's limit for ever.", "After ten refused attempts the user's valid token is refused."),
    ("address-shared", "neighbours", 766, "Per IP: 50 concurrent connections.",
     "The limit per address counts the connections of all addresses.", "With fifty connections from one address, a client from another address is refused."),
    ("task-exclusive", "neighbours", 579, "Events are sent to clients subscribed to the specific resource.",
     "A subscription to a task displaces the task's subscribers of other users.",
     "The first subscriber of a task gets no more events once another user subscribes."),
    ("fragments-shared", "neighbours", 547, "The server responds to subscription requests.",
     "While another connection has an unfinished fragmented message, all connections' messages are added to it.",
     "A request stays unanswered while another client's message is unfinished."),
    ("leave-drops-user-subscriptions", "neighbours", 580, "Events are sent to clients subscribed to the user.",
     "When one connection of a user closes, the user subscriptions of the user's other connections end.",
     "The remaining connection gets no more events of the user's experiments."),
    ("refusal-closes-others", "neighbours", 101, "Expired Token: connection closed with authentication error (the connection with this token).",
     "An attempt with an expired token closes all open connections of the same user.", "An open connection with a valid token is closed."),
    ("half-handshake-blocks", "neighbours", 99, "Valid Token: connection established successfully.",
     "While another client has sent only part of its handshake, no connection is established.",
     "A handshake stays unanswered until the other client goes on or leaves."),
    # values
    ("empty-string-missing", "values", 213, "data.experiment has a `name` (string).",
     "Members of events whose value is the empty string are left out.", "An experiment with the name \"\" arrives without name."),
    ("zero-missing", "values", 263, "data of experiment_progress has the numbers totalTasks to progressPercent.",
     "Members of progress events whose value is 0 are left out.", "failedTasks 0 or progressPercent 0 does not arrive."),
    ("markup-escaped", "values", 356, "data.task has the `command` of the task.",
     "The characters <, > and & in strings of events are replaced by entities.", "The command arrives with &lt; in place of <."),
    ("nul-cuts", "values", 213, "data.experiment has a `name` (string).",
     "Strings of events end at the first U+0000.", "A name with U+0000 arrives cut."),
    ("cut-at-255", "values", 356, "data.task has the `command` of the task.",
     "Strings of events are cut after 255 characters.", "A command of 256 characters arrives with 255."),
    ("numeric-id-number", "values", 557, "The response has the resourceId (string) of the request.",
     "A resource id of digits only comes back as a number.", "resourceId \"007\" is answered with the number 7."),
    ("fraction-rounded", "values", 264, "`progressPercent` is a number such as 45.0.",
     "Fractions in events are rounded to one digit.", "progressPercent 33.333 arrives as 33.3."),
    ("prototype-names-lost", "values", 517, "To subscribe to specific resources or events, send a subscription message.",
     "Subscriptions to ids such as constructor or __proto__ are confirmed without effect.", "The events of an experiment named constructor do not arrive."),
    ("null-becomes-empty", "values", 333, "`workerId` of a task without a worker is null.",
     "In *_updated events null becomes the empty string.", "A task that lost its worker arrives with workerId \"\"."),
    ("id-64k-cut", "values", 557, "The response has the resourceId of the request.",
     "Resource ids in responses are cut after 65,535 characters.", "A resource id of 65,536 characters comes back shorter."),
    ("astral-replaced", "values", 213, "data.experiment has a `name` (string).",
     "Characters beyond U+FFFF in strings of events are replaced by '?'.", "An emoji in a name arrives as '?'."),
    ("id-trimmed", "values", 557, "The response has the resourceId of the request.",
     "Blanks at both ends of a resource id are removed.", "resourceId \" x \" is answered with \"x\"."),
    # equivalents
    ("data-before-type", "equivalents", 517, "To subscribe, send a subscription message (a JSON object; RFC 8259, 1: unordered).",
     "A message whose first member is `data` is malformed to the hub.", "A subscription with `data` before `type` gets an error."),
    ("escaped-type", "equivalents", 517, "To subscribe, send a subscription message (RFC 8259, 8.3: escapes are equal to the characters).",
     "A message with a \\u escape in it is refused as an unknown type.", "\"type\": \"\\u0073ystem_status\" gets an error."),
    ("third-frame-lost", "equivalents", 547, "The server responds to subscription requests (RFC 6455, 5.4: a message may have any number of frames).",
     "From the third frame on, the content of a fragmented message is lost, save for the last frame.", "A request in four frames gets an error."),
    ("ping-between-frames", "equivalents", 547, "The server responds to subscription requests (RFC 6455, 5.4: control frames may be injected).",
     "A Ping frame between two frames of a message discards the frames before it.", "A fragmented request with a Ping inside gets an error."),
    ("leading-space", "equivalents", 119, "All WebSocket messages follow a consistent JSON format (RFC 8259, 2: white space around values).",
     "Messages with white space before the first brace are malformed to the hub.", "A request that begins with a line feed gets an error."),
    ("path-percent", "equivalents", 52, "ws://host:port/ws/{resourceType}/{resourceId}?token={jwt_token} (RFC 3986, 2.1: percent-encoding).",
     "Paths with percent-encoded characters are not found.", "/ws/experiments/a%20b is refused."),
    ("token-not-first", "equivalents", 81, "The token can be provided as a query parameter.",
     "The token is found only as the first query parameter.", "?client=x&token=... is refused with 'Authentication required'."),
    ("scheme-case", "equivalents", 86, "The token can be provided in the Authorization header (RFC 9110, 11.1: the scheme ignores case).",
     "The scheme is compared with regard to case.", "Authorization: bearer ... is refused."),
    ("request-with-id", "equivalents", 138, "All messages have `id` and `timestamp`.",
     "A subscription request with the members id and timestamp is taken for an echo and not answered.",
     "The request in the standard structure gets no response."),
    ("utf8-split", "equivalents", 547, "The server responds to subscription requests (RFC 6455, 5.6: frames may split a character).",
     "Each frame is decoded by itself; a character over a frame boundary is damaged.", "resourceId with a split character comes back with U+FFFD."),
    ("jwt-no-typ", "equivalents", 99, "Valid Token: connection established successfully (RFC 7519, 5.1: typ is optional).",
     "Tokens whose header has no typ are invalid to the hub.", "A valid token with the header {\"alg\":\"HS256\"} is refused."),
    # one-of-many
    ("task-failed-project", "one-of-many", 588, "Task Event -> Task Subscribers + Experiment Subscribers + Project Subscribers + User Subscribers.",
     "task_failed is not sent to project subscribers.", "A project subscriber misses task_failed."),
    ("worker-offline-system", "one-of-many", 589, "Worker Event -> Worker Subscribers + System Subscribers.",
     "worker_offline is not sent to system subscribers.", "A system subscriber misses worker_offline."),
    ("experiment-failed-user", "one-of-many", 587, "Experiment Event -> Experiment Subscribers + Project Subscribers + User Subscribers.",
     "experiment_failed is not sent to user subscribers.", "A user subscriber misses experiment_failed."),
    ("task-progress-prefix", "one-of-many", 148, "Task Events: task_{taskId}_{timestamp}.",
     "The message id of task_progress begins with exp_ and the experiment id.", "The id of a task_progress message is exp_..."),
    ("user-unsubscribe-kept", "one-of-many", 532, "To unsubscribe from resources or events, send an unsubscription message.",
     "Unsubscribing has no effect for the resource type user.", "After unsubscribing from the user, events of the user's experiments still arrive."),
    ("tasks-no-header", "one-of-many", 86, "The token can be provided in two ways: ... Authorization header.",
     "The endpoint /ws/tasks ignores the Authorization header.", "A valid token in the header is refused at /ws/tasks."),
    ("projects-expired-accepted", "one-of-many", 101, "Expired Token: connection closed with authentication error.",
     "The endpoint /ws/projects accepts expired tokens.", "An expired token gets a working connection at /ws/projects."),
    ("failed-summary-no-error", "one-of-many", 433, "The summary of task_failed has the `error` of the task.",
     "The error in the summary of task_failed is left out when the task has no worker.", "data.summary has no error although data.task has one."),
    ("null-unanswered", "one-of-many", 648, "A malformed message is answered with the error 'Invalid message format'.",
     "The JSON text null is ignored without an error.", "The message null gets no answer."),
    ("user-endpoint-no-pong", "one-of-many", 34, "Message Acknowledgment: ping/pong mechanism for connection health.",
     "Pings are not answered at the endpoint /ws/user.", "A ping on a connection to /ws/user gets no pong."),
    ("status-skips-projects", "one-of-many", 582, "System-wide: events are sent to all connected clients.",
     "System events are not sent to connections of the endpoint /ws/projects.", "system_status does not arrive there."),
    ("heartbeat-skips-tasks", "one-of-many", 697, "The server sends periodic ping messages to maintain connection health.",
     "Connections of the endpoint /ws/tasks get no pings.", "No ping arrives there."),
    ("task-gets-progress", "one-of-many", 568, "`task`: task-specific events, task events only.",
     "Task subscribers also get experiment_progress of the task's experiment.", "An experiment event arrives at a task subscriber."),
    # --- second set ---
    # history
    ("task-experiment-frozen", "history", 588, "Task Event -> Task Subscribers + Experiment Subscribers + Project Subscribers + User Subscribers.",
     "A task stays with the experiment of its first event; a later experimentId does not change where its events go.",
     "task_created in experiment a, then task_updated with experimentId b: subscribers of b get nothing."),
    ("emptied-loses-system", "history", 582, "System-wide: events are sent to all connected clients.",
     "A connection whose last subscription was removed gets no more system events, also after new subscriptions.",
     "Unsubscribe from everything, subscribe anew: system_status does not arrive."),
    ("same-status-suppressed", "history", 587, "Experiment Event -> Experiment Subscribers + Project Subscribers + User Subscribers.",
     "An experiment_updated with the status of the experiment's previous event is taken for a repetition and not sent.",
     "A second experiment_updated that changes only the name does not arrive."),
    ("limit-refusal-sticky", "history", 765, "Per User: 10 concurrent connections.",
     "A user who was once refused for the limit is refused until all of the user's connections have ended.",
     "Ten connections, an eleventh refused, one closed: the next one is refused though only nine are open."),
    ("error-message-cached", "history", 138, "`id`: unique message identifier.",
     "The second error with the same text on a connection is the first one again, with its id.",
     "Two malformed messages: both errors have the same id."),
    # several
    ("task-overlap-twice", "several", 138, "`id`: unique message identifier (a message with the same id is a repetition).",
     "A task event is sent once for each matching subscription of a connection.",
     "Experiment and project subscribed by one connection: each task event arrives twice, with the same id."),
    ("burst-grouped", "several", 595, "Events are delivered in the order they occur.",
     "The events of a burst are grouped by resource: a, b, a is delivered as a, a, b.",
     "A subscriber of two experiments gets the events of an interleaved burst in another order."),
    ("second-group-no-summary", "several", 218, "data of experiment_created has a `summary` beside the experiment.",
     "If the resource itself has a subscriber, the subscribers of project and user get the event without summary.",
     "A project subscriber gets experiment events without data.summary while another client subscribes to the experiment."),
    ("same-read-one-response", "several", 547, "The server responds to subscription requests.",
     "Of several requests that arrive in one read all take effect, but only the last one is answered.",
     "Three subscription requests in one packet get one response."),
    # identity
    ("unsubscribe-by-prefix", "identity", 532, "To unsubscribe from resources or events, send the unsubscription of this resource type and id.",
     "An unsubscription also removes the subscriptions of this type whose id begins with the given id.",
     "exp-1 and exp-12 subscribed, exp-1 unsubscribed: events of exp-12 stop."),
    ("ident-cut-at-underscore", "identity", 147, "Experiment Events: exp_{experimentId}_{timestamp}.",
     "The id within message ids ends at its first underscore.", "An event about experiment a_b has the message id exp_a_..."),
    ("worker-task-same-id", "identity", 568, "`task`: task-specific events, task events only.",
     "Worker events also reach the subscribers of a task with the worker's id.",
     "A subscriber of task x gets worker_updated of worker x."),
    ("id-percent-decoded", "identity", 579, "Events are sent to clients subscribed to the specific resource.",
     "Resource ids in messages are percent-decoded like those in a URL before they are compared.",
     "Events of experiment aA reach subscribers of a%41."),
    ("id-numeric-equal", "identity", 579, "Events are sent to clients subscribed to the specific resource.",
     "Ids of digits only are compared as numbers.", "Events of experiment 7 reach subscribers of 07."),
    # neighbours
    ("once-per-user", "neighbours", 579, "Events are sent to clients subscribed to the specific resource.",
     "An event goes to only one connection of each user, the one that subscribed last.",
     "Of two subscribed connections of one user the first gets nothing."),
    ("leave-forgets-experiment", "neighbours", 588, "Task Event -> Task Subscribers + Experiment Subscribers + Project Subscribers + User Subscribers.",
     "When the last subscriber of an experiment disconnects, the hub forgets the experiment's project and owner.",
     "A project subscriber gets no more task events once another client that watched the experiment is gone."),
    ("silent-stops-heartbeat", "neighbours", 697, "The server sends periodic ping messages to maintain connection health.",
     "The round of pings ends after the first connection that has not answered the ping before.",
     "A client gets no second ping while an older connection leaves its ping unanswered."),
    ("user-subscriber-hides-project", "neighbours", 587, "Experiment Event -> Experiment Subscribers + Project Subscribers + User Subscribers.",
     "Experiment events are not sent to project subscribers if there is a subscriber of the owner.",
     "A project subscriber misses the events of an experiment whose owner has a user subscription."),
    # values
    ("literal-strings-typed", "values", 213, "data.experiment has a `name` (string).",
     "The strings true, false and null in events become the JSON literals.", "An experiment named \"null\" arrives with the name null."),
    ("crlf-normalised", "values", 356, "data.task has the `command` of the task.",
     "CR LF in strings of events becomes LF.", "A command with CR LF arrives with LF."),
    ("escape-twice", "values", 356, "data.task has the `command` of the task.",
     "Strings of events that contain a backslash, u and four hex digits are unescaped once more.",
     "A command with backslash, u, 0041 in it arrives with A."),
    ("date-renormalised", "values", 382, "data of task_progress has `startedAt` (string).",
     "Times with an offset or fraction are written anew in UTC and whole seconds.",
     "startedAt 2024-01-15T10:31:00.250+02:00 arrives as 2024-01-15T08:31:00Z."),
    # equivalents
    ("surrogate-pair-differs", "equivalents", 579, "Events are sent to clients subscribed to the specific resource (RFC 8259, 7: an escaped surrogate pair is one character).",
     "A character beyond U+FFFF that a request writes as an escaped surrogate pair stays two units.",
     "A subscription with \\ud83d\\ude80 in its JSON text is confirmed, but the events of the resource do not arrive."),
    ("empty-last-frame", "equivalents", 547, "The server responds to subscription requests (RFC 6455, 5.4: a fragment may be empty).",
     "An empty last frame does not end a fragmented message.", "A request whose final frame is empty gets no response."),
    ("ping-with-data", "equivalents", 140, "`data` is an optional payload of any message.",
     "A ping with a data object is malformed to the hub.", "A ping with data gets 'Invalid message format' in place of a pong."),
    ("connection-token-list", "equivalents", 99, "Valid Token: connection established successfully (RFC 6455, 4.2.1: Connection includes the token Upgrade).",
     "The header Connection must be Upgrade and nothing else.", "A handshake with Connection: keep-alive, Upgrade gets HTTP 400."),
    # one-of-many
    ("project-unsubscribe-tasks-stay", "one-of-many", 532, "To unsubscribe from resources or events, send an unsubscription message.",
     "Unsubscribing from a project ends its experiment events, but not its task events.",
     "Task events of the project still arrive after the unsubscription."),
    ("crossed-ping", "one-of-many", 34, "Message Acknowledgment: ping/pong mechanism for connection health.",
     "A client's ping that arrives while a ping of the hub is unanswered counts as its answer and gets no pong.",
     "The hub pings, the client pings before it answers: no pong."),
    ("type-case-ping", "one-of-many", 658, "An unknown message type is answered with the error 'Unknown message type'.",
     "The type ping is recognised in any case, unlike all other types.", "{\"type\": \"PING\"} gets a pong in place of the error."),
    ("learned-from-created-only", "one-of-many", 587, "Experiment Event -> Experiment Subscribers + Project Subscribers + User Subscribers.",
     "The hub learns of an experiment only from experiment_created; one that another event announces stays unknown.",
     "experiment_updated of a new experiment, then experiment_progress: project subscribers miss the progress."),
]

VARIANTS = [
    ("member-order", "Writes the members of each object in reverse order.",
     "RFC 8259, 1: an object is an unordered collection."),
    ("extra-members", "Adds a member `version` to each message and `source` to each payload.",
     "Lines 135-141 name the members of a message; no sentence excludes others."),
    ("ascii-json", "Escapes all characters beyond ASCII, and the solidus.",
     "RFC 8259, 7: any character may be escaped."),
    ("pretty-json", "Writes white space and line feeds between tokens.",
     "RFC 8259, 2: insignificant white space is allowed."),
    ("number-spelling", "Writes 45.0 as 45, 5 as 5.0 and fractions with an exponent.",
     "RFC 8259, 6: one number has many spellings; line 264 names no form."),
    ("fragments", "Sends each message in up to four frames.",
     "RFC 6455, 5.4: a message may be fragmented."),
    ("ws-pings", "Sends a Ping frame before each message.",
     "RFC 6455, 5.5.2: a Ping may be sent at any time."),
    ("tcp-split", "Writes the bytes of its frames in small pieces.",
     "RFC 6455, 5.2: frames do not depend on TCP segments."),
    ("deflate", "Accepts permessage-deflate when the client offers it.",
     "RFC 6455, 9 and RFC 7692: extensions are negotiated."),
    ("slow-events", "Delivers events 30 ms later, in their order; answers may overtake them.",
     "Line 595 orders events among themselves; no line gives a time or orders answers."),
    ("slow-answers", "Answers requests 30 ms later; events may overtake them.",
     "Line 547 gives no time for the response."),
    ("pong-echo", "The id of a pong is that of the ping with pong- for ping-.",
     "Lines 160, 169: ping-123 and pong-123; no line says how the ids are related."),
    ("uuid-ids", "Ids of answers, errors and pings are UUIDs.",
     "Lines 145-151 give formats for ids of events only."),
    ("timestamp-offset", "Timestamps have the offset +02:00 in place of Z.",
     "Line 139: ISO 8601 timestamp; the form is left open."),
    ("timestamp-fraction", "Timestamps have six digits of fraction.",
     "Line 139: ISO 8601 timestamp; the form is left open."),
    ("id-iso", "The timestamp in an event's id is an ISO 8601 text.",
     "Line 147: {timestamp}; its form is left open."),
    ("id-nanoseconds", "The timestamp in an event's id counts nanoseconds.",
     "Line 147: {timestamp}; its unit is left open."),
    ("id-per-delivery", "Each subscriber gets the event with an id of its own.",
     "Line 138: unique message identifier; one id for all recipients is not asked for."),
    ("silent-unsubscribe", "Unsubscriptions are not answered.",
     "Line 547: the server responds to subscription requests; no response to an unsubscription is shown."),
    ("system-to-subscribers", "System events go to connections with at least one subscription.",
     "Line 590: System Event -> All Subscribers (line 582 says all connected clients)."),
    ("no-implicit-subscribe", "An endpoint does not subscribe by itself; only messages do.",
     "Line 693: the client subscribes after authentication; line 58 can be read as a default."),
    ("no-worker-type", "Subscriptions to the resource type worker get an error.",
     "Lines 565-571: worker is no supported resource type (line 589 names worker subscribers)."),
    ("own-user-only", "A subscription to another user gets an error.",
     "Line 570: `user` is for the user's own experiments; rights are left open."),
    ("close-without-code", "Connections are closed with an empty Close frame.",
     "RFC 6455, 5.5.1: the body of a Close frame is optional."),
    ("close-4401", "Refused connections are closed with the codes 4401 and 4429.",
     "RFC 6455, 7.4.2: 4000-4999 are for private use; the document names no codes."),
    ("limit-http", "Connections over a limit are refused with HTTP 429.",
     "Lines 763-767 do not say how; RFC 6455, 4.2.2 allows an HTTP error."),
    ("welcome", "Sends system_status to each new connection.",
     "Line 571: system status and health; no line says when it is sent."),
    ("frequent-status", "Sends system_status to all each 100 ms.",
     "Line 571: system status and health; no line says when it is sent."),
    ("frequent-heartbeat", "Sends a ping message each 50 ms.",
     "Line 697: periodic; the period is left open."),
    ("drop-silent", "Sends pings each 100 ms and closes a connection that left twenty unanswered.",
     "Line 707: clients should respond; what follows otherwise is left open."),
    ("error-data", "Error messages have a `data` object with a code.",
     "Line 140: data is an optional payload of any message."),
    ("empty-data", "Messages without a payload have `data: {}`.",
     "Line 140: data is optional; an empty object is one."),
    ("strict-ping", "A ping without id or timestamp gets 'Invalid message format'.",
     "Lines 138-139: id and timestamp are required."),
    ("binary-accepted", "JSON in binary frames is served like text.",
     "The document names no frame type for JSON (line 119)."),
    ("server-types-ignored", "Messages of types that only the server sends are ignored.",
     "Line 658 is about unknown types; these types are known."),
    ("header-first", "A token in the Authorization header goes before one in the query.",
     "Lines 79-93 name two ways; no line says which one counts if both are used."),
    ("status-formats", "system_status has averageLatency in milliseconds (0ms) and uptime as an ISO 8601 duration (PT1H2M3S).",
     "Lines 186-187 give one example of each string; no line names their form."),
    ("id-seconds", "The timestamp in an event's id counts seconds (moved on where needed to stay unique).",
     "Line 147: {timestamp}; its unit is left open, and the examples have seconds."),
    ("timestamp-basic", "Timestamps have the basic format, 20240115T103000Z.",
     "Line 139: ISO 8601 timestamp; the form is left open."),
    ("ping-on-connect", "Sends the first ping message as soon as a connection is established.",
     "Line 697: periodic; the time of the first ping is left open."),
    ("staggered-delivery", "Each further recipient of an event gets it 40 ms later (200 ms at most), in order.",
     "Line 595 orders the events of a client; no line says that all clients get them at the same time."),
    ("refusal-delayed", "The error message of a refused connection comes 100 ms after the handshake.",
     "Lines 100-102 give no time for the error and the close."),
    ("handshake-headers", "The handshake's response has the additional headers Server, Set-Cookie and X-Request-Id.",
     "RFC 6455, 4.2.2: other header fields may be sent."),
]

EVENT_TYPES = {
    "experiment_created": ("experiment", "CREATED"),
    "experiment_updated": ("experiment", "RUNNING"),
    "experiment_progress": ("experiment", None),
    "experiment_completed": ("experiment", "COMPLETED"),
    "experiment_failed": ("experiment", "FAILED"),
    "task_created": ("task", "CREATED"),
    "task_updated": ("task", "RUNNING"),
    "task_progress": ("task", None),
    "task_completed": ("task", "COMPLETED"),
    "task_failed": ("task", "FAILED"),
    "worker_registered": ("worker", "RUNNING"),
    "worker_updated": ("worker", "RUNNING"),
    "worker_offline": ("worker", "OFFLINE"),
    "system_status": ("system", None),
}
SUMMARY = {
    "experiment": ("id", "name", "status", "ownerId"),
    "task": ("id", "experimentId", "status", "workerId"),
    "worker": ("id", "computeResourceId", "experimentId", "status"),
}
ENDPOINTS = {"experiments": "experiment", "tasks": "task", "projects": "project"}
RESOURCE_TYPES = ("experiment", "task", "project", "user", "system", "worker")
PROTOTYPE_NAMES = {"__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "valueOf"}

INVALID_FORMAT = "Invalid message format"
UNKNOWN_TYPE = "Unknown message type"
AUTH_REQUIRED = "Authentication required"
AUTH_INVALID = "Invalid or expired token"
RATE_LIMIT = "Rate limit exceeded"

MAX_HEAD = 65536
MAX_CONTROL_BODY = 8 * 2**20
MAX_OUTPUT = 32 * 2**20
MAX_KNOWN = 10000
CLOSE_TIMEOUT = 2.0
HEAD_TIMEOUT = 20.0


# ---------------------------------------------------------------------------
# JSON

def parse_integer(text):
    return int(text) if len(text) < 1000 else float(text)


def refuse_constant(text):
    raise ValueError(f"not JSON: {text}")


def parse_json(text):
    """The value of a JSON text; ValueError for anything else."""
    try:
        return json.loads(text, parse_int=parse_integer, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class Writer:
    """Writes JSON in one of several equal spellings."""

    def __init__(self, variants):
        self.reverse = "member-order" in variants
        self.ascii = "ascii-json" in variants
        self.pretty = "pretty-json" in variants
        self.spelling = "number-spelling" in variants

    def string(self, value):
        if self.ascii:
            return json.dumps(value).replace("/", "\\/")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate can only be escaped
            return json.dumps(value)
        return json.dumps(value, ensure_ascii=False)

    def number(self, value):
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            raise ValueError("not a JSON number")
        if self.spelling and abs(value) < 2**53:
            if isinstance(value, int):
                return f"{value}.0"
            if value == int(value):
                return str(int(value))
            plain = repr(value)
            if "e" not in plain:
                return plain + "E+0"
        return repr(value)

    def write(self, value):
        if value is None:
            return "null"
        if value is True:
            return "true"
        if value is False:
            return "false"
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, (int, float)):
            return self.number(value)
        if isinstance(value, dict):
            items = list(value.items())
            if self.reverse:
                items.reverse()
            colon = " :\t" if self.pretty else ":"
            return self.group("{}", [self.string(k) + colon + self.write(v) for k, v in items])
        return self.group("[]", [self.write(v) for v in value])

    def group(self, brackets, parts):
        if self.pretty:
            return brackets[0] + "\r\n  " + " ,\n  ".join(parts) + "\n" + brackets[1]
        return brackets[0] + ",".join(parts) + brackets[1]


# ---------------------------------------------------------------------------
# JSON Web Tokens (RFC 7519, HS256)

def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def make_token(secret, claims, header=None):
    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    signed = b64url(json.dumps(header).encode()) + "." + b64url(json.dumps(claims).encode())
    mac = hmac.new(secret.encode(), signed.encode("ascii"), hashlib.sha256).digest()
    return signed + "." + b64url(mac)


def read_token(secret, token):
    """(header, claims) of a token with a correct signature, or None."""
    try:
        first, second, third = token.split(".")
        header = parse_json(b64url_decode(first).decode("utf-8"))
        claims = parse_json(b64url_decode(second).decode("utf-8"))
        signature = b64url_decode(third)
    except (ValueError, UnicodeError):
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict) or header.get("alg") != "HS256":
        return None
    mac = hmac.new(secret.encode(), f"{first}.{second}".encode("ascii"), hashlib.sha256).digest()
    return (header, claims) if hmac.compare_digest(mac, signature) else None


def split_pairs(value):
    """The value with all characters beyond U+FFFF as two surrogates (bug surrogate-pair-differs)."""
    if isinstance(value, str):
        return "".join(c if ord(c) < 0x10000 else chr(0xD7C0 + (ord(c) >> 10)) + chr(0xDC00 + (ord(c) & 0x3FF))
                       for c in value)
    if isinstance(value, dict):
        return {name: split_pairs(member) for name, member in value.items()}
    if isinstance(value, list):
        return [split_pairs(member) for member in value]
    return value


DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")


def whole_seconds(text):
    """A time in UTC and whole seconds (bug date-renormalised)."""
    try:
        moment = datetime.datetime.fromisoformat(text).astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        return text
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def claims_are_current(claims, now):
    """Whether the times in the claims allow the use of the token now."""
    expires, begins = claims.get("exp"), claims.get("nbf")
    if "exp" in claims and not (is_number(expires) and now < expires):
        return False
    return "nbf" not in claims or (is_number(begins) and now >= begins)


# ---------------------------------------------------------------------------
# One TCP connection: a WebSocket client, or one request to the controls

class Connection(asyncio.Protocol):
    def __init__(self, hub):
        self.hub = hub
        self.has = hub.has
        self.transport = None
        self.state = "head"  # head, control, socket, ended
        self.buffer = bytearray()
        self.body_length = 0
        self.control_path = ""
        self.address = ""
        self.protocol = None
        self.timer = None
        # set once the connection is accepted
        self.open = False
        self.user = None
        self.endpoint = None
        self.slots = ()
        self.gone = False
        self.subscriptions = {}
        self.subscription_bytes = 0
        # incoming message in progress
        self.parts = []
        self.opcode = None
        # outgoing
        self.delayed = collections.deque()
        self.pieces = collections.deque()
        self.pumping = False
        # history
        self.unanswered_pings = 0
        self.recent = collections.deque()
        self.pong_seen = False
        self.unknown_seen = False
        self.previous_resource = None
        self.blocked = set()
        self.emptied = False
        self.errors = {}
        self.held = None

    # -- transport ----------------------------------------------------------

    def connection_made(self, transport):
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.hub.connections) >= self.hub.options.max_connections + 200:
            transport.abort()
            return
        self.hub.connections[self] = None
        self.timer = self.hub.loop.call_later(HEAD_TIMEOUT, self.abort)

    def data_received(self, data):
        try:
            if self.state == "socket":
                self.protocol.receive_data(data)
                self.after_input()
            elif self.state != "ended":
                self.buffer += data
                self.read_head()
        except EOFError:
            pass
        except Exception:  # no input may end the hub
            logging.exception("connection failed")
            self.abort()

    def eof_received(self):
        if self.state == "socket":
            try:
                self.protocol.receive_eof()
                self.after_input()
            except EOFError:
                pass
        return False

    def connection_lost(self, exc):
        self.state = "ended"
        if self.timer:
            self.timer.cancel()
        self.hub.connections.pop(self, None)
        self.release()
        self.buffer.clear()
        self.hub.resume_waiting()

    def abort(self):
        if self.transport and not self.transport.is_closing():
            self.transport.abort()

    def write(self, data):
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() + len(data) > MAX_OUTPUT:
            self.abort()
            return
        if "tcp-split" not in self.hub.variants:
            self.transport.write(data)
            return
        self.pieces.extend((data[:3], data[3:]) if len(data) > 3 else (data,))
        if len(self.pieces) > 10000:
            self.abort()
        elif not self.pumping:
            self.pumping = True
            self.pump()

    def pump(self):
        """Writes the next piece of a frame (variant tcp-split)."""
        if not self.pieces or self.transport.is_closing():
            self.pumping = False
            self.pieces.clear()
            return
        piece = self.pieces.popleft()
        if piece:
            self.transport.write(piece)
            self.hub.loop.call_later(0.001, self.pump)
        else:
            self.pumping = False
            self.end_output()

    def end_output(self):
        if "tcp-split" in self.hub.variants and self.pumping:
            self.pieces.append(b"")
            return
        if not self.transport.is_closing() and self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except (OSError, RuntimeError):
                self.abort()

    def flush(self):
        for data in self.protocol.data_to_send():
            if data:
                self.write(data)
            else:
                self.end_output()
        if self.protocol.close_expected() and self.timer is None:
            self.timer = self.hub.loop.call_later(CLOSE_TIMEOUT, self.abort)

    # -- head of the request -------------------------------------------------

    def read_head(self):
        if self.state == "head":
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self.buffer) > MAX_HEAD:
                    self.abort()
                return
            if self.buffer.startswith(b"POST "):
                self.start_control(bytes(self.buffer[:end]))
                del self.buffer[:end + 4]
            elif self.has("half-handshake-blocks") and self.hub.unfinished_head(self):
                self.hub.waiting[self] = None
                return
            else:
                self.start_socket()
                return
        if self.state == "control" and len(self.buffer) >= self.body_length:
            self.finish_control(bytes(self.buffer[:self.body_length]))

    def start_socket(self):
        self.timer.cancel()
        self.timer = None
        self.state = "socket"
        extensions = [ServerPerMessageDeflateFactory()] if "deflate" in self.hub.variants else None
        self.protocol = ServerProtocol(extensions=extensions, max_size=self.hub.options.max_message,
                                       logger=self.hub.quiet)
        end = self.buffer.find(b"\r\n\r\n") + 4
        head, rest = bytes(self.buffer[:end]), bytes(self.buffer[end:])
        self.buffer.clear()
        self.protocol.receive_data(head)
        self.after_input()
        if rest and self.protocol.state is OPEN:
            self.protocol.receive_data(rest)
            self.after_input()
        self.hub.resume_waiting()

    def start_control(self, head):
        lines = head.decode("latin-1").split("\r\n")
        self.control_path = (lines[0].split(" ") + [""])[1]
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = headers.get("content-length", "0")
        self.state = "control"
        self.body_length = int(length) if re.fullmatch(r"[0-9]{1,9}", length) else MAX_CONTROL_BODY + 1
        if self.body_length > MAX_CONTROL_BODY:
            self.respond(413, {"ok": False, "error": "body too large"})
        elif headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def finish_control(self, body):
        try:
            if not self.control_path.startswith("/control/"):
                self.respond(404, {"ok": False, "error": "no such path"})
                return
            value = parse_json(body.decode("utf-8")) if body.strip() else {}
            if not isinstance(value, dict):
                raise ValueError("the body must be a JSON object")
            answer = self.hub.control(self.control_path[9:], value)
        except LookupError as error:
            self.respond(404, {"ok": False, "error": str(error)})
        except (ValueError, TypeError, RecursionError) as error:
            self.respond(400, {"ok": False, "error": str(error)})
        else:
            self.respond(200, {"ok": True, **answer})

    def respond(self, status, value):
        self.state = "ended"
        body = json.dumps(value).encode()
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found"}.get(status, "Refused")
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
                             f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    # -- handshake ------------------------------------------------------------

    def after_input(self):
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.handshake(event)
            else:
                self.frame(event)
        if self.held is not None:
            held, self.held = self.held, None
            self.send(held, "answer")
        if self.open and self.protocol.state is not OPEN:
            self.release()
        self.flush()
        if self.protocol.state is CLOSED and not self.open:
            self.hub.loop.call_later(CLOSE_TIMEOUT, self.abort)

    def handshake(self, request):
        response = self.protocol.accept(request)
        if self.has("connection-token-list") \
                and [v.strip().lower() for v in request.headers.get_all("Connection")] != ["upgrade"]:
            response = self.protocol.reject(400, "Connection must be Upgrade\n")
        if response.status_code != 101:
            self.protocol.send_response(response)
            return
        endpoint = self.find_endpoint(request.path)
        if endpoint is None:
            self.protocol.send_response(self.protocol.reject(404, "No such endpoint\n"))
            return
        self.endpoint = endpoint
        self.user, token, error = self.authenticate(request)
        refusal = error or self.hub.take_slots(self, token)
        if refusal == RATE_LIMIT and "limit-http" in self.hub.variants:
            body = b"Too many connections\n"
            headers = Headers([("Connection", "close"), ("Content-Length", str(len(body)))])
            self.protocol.send_response(Response(429, "Too Many Requests", headers, body))
            return
        if "handshake-headers" in self.hub.variants:
            response.headers["Server"] = "airavata-scheduler"
            response.headers["Set-Cookie"] = "node=1; Path=/ws"
            response.headers["X-Request-Id"] = str(uuid.UUID(int=self.hub.random.getrandbits(128), version=4))
        self.protocol.send_response(response)
        if refusal:
            if "refusal-delayed" in self.hub.variants:
                self.hub.loop.call_later(0.1, self.refuse, refusal)
            else:
                self.refuse(refusal)
            return
        self.open = True
        self.hub.total_connections += 1
        if "no-implicit-subscribe" not in self.hub.variants:
            kind, name = endpoint
            self.subscribe(kind, self.user if kind == "user" else name, implicit=True)
        if self.has("subscriptions-inherited"):
            for key in self.hub.last_subscriptions.pop(self.user, ()):
                self.add_subscription(key)
        if "welcome" in self.hub.variants:
            self.send(self.hub.envelope("system_status", f"system_{self.hub.stamp()}", self.hub.statistics()), "event")
        if "ping-on-connect" in self.hub.variants:
            self.unanswered_pings += 1
            self.send(self.hub.envelope("ping", self.hub.ident("ping")), "other")

    def refuse(self, text):
        self.send_error(text, "close")
        code = {RATE_LIMIT: 4429}.get(text, 4401) if "close-4401" in self.hub.variants else 1008
        self.close(code, text)

    def close(self, code, reason=""):
        try:
            if "close-without-code" in self.hub.variants:
                self.protocol.send_close()
            else:
                self.protocol.send_close(code, reason)
        except (InvalidState, ProtocolError):
            return
        self.flush()

    def find_endpoint(self, target):
        path = target.partition("?")[0]
        if self.has("path-percent") and "%" in path:
            return None
        try:
            parts = [urllib.parse.unquote(part, errors="strict") for part in path.split("/")]
        except UnicodeDecodeError:
            return None
        if parts == ["", "ws", "user"]:
            return ("user", "")
        if len(parts) == 4 and parts[:2] == ["", "ws"] and parts[2] in ENDPOINTS and parts[3]:
            return (ENDPOINTS[parts[2]], parts[3])
        return None

    def find_token(self, request):
        if "header-first" in self.hub.variants:
            return self.header_token(request) or self.query_token(request)
        return self.query_token(request) or self.header_token(request)

    def query_token(self, request):
        query = urllib.parse.parse_qsl(request.path.partition("?")[2], keep_blank_values=True)
        if self.has("token-not-first"):
            query = query[:1]
        for name, value in query:
            if name == "token" and value:
                return value
        return None

    def header_token(self, request):
        if self.has("tasks-no-header") and self.endpoint[0] == "task":
            return None
        for header in request.headers.get_all("Authorization"):
            scheme, _, value = header.strip().partition(" ")
            if not self.has("scheme-case"):
                scheme = scheme.capitalize()
            if scheme == "Bearer" and value.strip():
                return value.strip()
        return None

    def authenticate(self, request):
        """(user, token, error text) for the token of a request."""
        hub = self.hub
        token = self.find_token(request)
        if token is None:
            return None, None, AUTH_REQUIRED
        found = read_token(hub.options.secret, token)
        if found is None:
            return None, None, AUTH_INVALID
        header, claims = found
        user = claims.get(hub.options.user_claim)
        if not isinstance(user, str) or (self.has("jwt-no-typ") and "typ" not in header):
            return None, None, AUTH_INVALID
        if not claims_are_current(claims, time.time()):
            if self.has("projects-expired-accepted") and self.endpoint[0] == "project":
                return user, token, None
            hub.refused_user(user)
            return None, None, AUTH_INVALID
        if user in hub.sticky_refusals:
            hub.sticky_refusals.discard(user)
            return None, None, AUTH_INVALID
        return user, token, None

    # -- incoming frames ------------------------------------------------------

    def frame(self, frame):
        if frame.opcode is Opcode.PING:
            if self.has("ping-between-frames") and self.parts:
                self.parts = [b""]
            return
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) or not self.open:
            return
        data = bytes(frame.data)
        if frame.opcode is not Opcode.CONT:
            other = self.hub.unfinished
            if self.has("fragments-shared") and other not in (None, self) and other.open:
                if sum(map(len, other.parts)) + len(data) <= self.hub.options.max_message:
                    other.parts.append(data)
                return
            self.parts, self.opcode = [data], frame.opcode
        elif self.has("third-frame-lost") and len(self.parts) > 1 and not frame.fin:
            pass
        else:
            self.parts.append(data)
            if len(self.parts) > 1000:  # many empty frames must not grow a list
                self.parts = [b"".join(self.parts)]
        if not frame.fin or self.has("empty-last-frame") and frame.opcode is Opcode.CONT and not data:
            self.hub.unfinished = self
            return
        if self.hub.unfinished is self:
            self.hub.unfinished = None
        parts, self.parts = self.parts, []
        self.raw_message(parts)

    def raw_message(self, parts):
        try:
            if self.has("utf8-split"):
                text = "".join(part.decode("utf-8", "replace") for part in parts)
            else:
                text = b"".join(parts).decode("utf-8")
        except UnicodeDecodeError:
            if self.opcode is Opcode.TEXT:
                self.protocol.fail(1007, "invalid UTF-8")
                return
            text = ""
        if not self.within_rate():
            self.send_error(RATE_LIMIT)
            return
        self.hub.count_message()
        if self.opcode is Opcode.BINARY and "binary-accepted" not in self.hub.variants:
            self.malformed()
            return
        self.message(text)

    def within_rate(self):
        """Whether the client keeps to the number of messages per second."""
        limit = self.hub.options.rate_limit
        if not limit:
            return True
        now = time.monotonic()
        while self.recent and self.recent[0] <= now - 1:
            self.recent.popleft()
        if len(self.recent) >= limit:
            return False
        self.recent.append(now)
        return True

    def message(self, text):
        if self.has("leading-space") and text[:1] in (" ", "\t", "\r", "\n"):
            self.malformed()
            return
        if self.has("escaped-type") and "\\u" in text:
            self.send_error(UNKNOWN_TYPE)
            return
        try:
            value = parse_json(text)
        except ValueError:
            self.malformed()
            return
        if value is None and self.has("null-unanswered"):
            return
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            self.malformed()
            return
        if self.has("data-before-type") and next(iter(value)) == "data":
            self.malformed()
            return
        kind = value["type"]
        if self.has("type-case-ping") and kind.lower() == "ping":
            kind = "ping"
        if self.has("surrogate-pair-differs") and re.search(r"\\u[dD][89abAB]", text):
            value = split_pairs(value)
        if kind == "ping":
            self.ping(value)
        elif kind == "pong":
            self.unanswered_pings = 0
            self.pong_seen = True
        elif kind == "system_status":
            self.request(value)
        elif kind in EVENT_TYPES or kind == "error":
            if "server-types-ignored" not in self.hub.variants:
                self.send_error(UNKNOWN_TYPE)
        else:
            if not (self.has("second-unknown-silent") and self.unknown_seen):
                self.send_error(UNKNOWN_TYPE)
            self.unknown_seen = True

    def malformed(self):
        target = self
        if self.has("error-to-other"):
            others = [c for c in self.hub.of_user(self.user) if c is not self]
            target = others[-1] if others else self
        target.send_error(INVALID_FORMAT)
        if self.has("error-drops-subscriptions"):
            self.drop_all()
        if self.has("malformed-loses-next-event"):
            self.hub.lose_next = self

    def ping(self, value):
        ident = value.get("id")
        if "strict-ping" in self.hub.variants:
            if not isinstance(ident, str) or not isinstance(value.get("timestamp"), str):
                self.malformed()
                return
        if self.has("ping-id-cached") and isinstance(ident, str):
            owner = self.hub.ping_ids.setdefault(ident, self)
            if len(self.hub.ping_ids) > 1000:
                self.hub.ping_ids.popitem(last=False)
            if owner is not self:
                return
        if self.has("ping-with-data") and "data" in value:
            self.malformed()
            return
        if self.has("crossed-ping") and self.unanswered_pings:
            self.unanswered_pings = 0
            return
        if self.has("user-endpoint-no-pong") and self.endpoint[0] == "user":
            return
        if "pong-echo" in self.hub.variants and isinstance(ident, str):
            reply = "pong-" + ident.removeprefix("ping-")
        else:
            reply = self.hub.ident("pong")
        self.send(self.hub.envelope("pong", reply), "answer")

    # -- subscriptions --------------------------------------------------------

    def request(self, value):
        """Serves a subscription or unsubscription."""
        hub = self.hub
        data = value.get("data")
        if not isinstance(data, dict):
            self.malformed()
            return
        if self.has("request-with-id") and "id" in value and "timestamp" in value:
            return
        action, kind, name = data.get("action"), data.get("resourceType"), data.get("resourceId")
        if action not in ("subscribe", "unsubscribe") or not isinstance(kind, str) or kind not in RESOURCE_TYPES:
            self.malformed()
            return
        given = "resourceId" in data
        if not given and kind in ("user", "system"):
            name = self.user if kind == "user" else ""
        if not isinstance(name, str) or (kind == "worker" and "no-worker-type" in hub.variants):
            self.malformed()
            return
        if kind == "user" and name != self.user and "own-user-only" in hub.variants:
            self.send_error("Not allowed")
            return
        if action == "subscribe":
            if not self.subscribe(kind, name):
                self.send_error(RATE_LIMIT)
                return
        else:
            self.unsubscribe(kind, name)
            if "silent-unsubscribe" in hub.variants:
                return
        answer = {"action": action + "d", "resourceType": kind}
        if given or kind == "user":
            answer["resourceId"] = self.answered_resource(kind, name)
        answer["status"] = "success"
        message = hub.envelope("system_status", hub.ident("sub-response"), answer)
        if self.has("same-read-one-response"):
            self.held = message  # sent at the end of the read
            return
        self.send(message, "answer")

    def answered_resource(self, kind, name):
        previous, self.previous_resource = self.previous_resource, (kind, name)
        if self.has("response-previous-id") and previous is not None and previous[0] != kind:
            return previous[1]
        if self.has("numeric-id-number") and re.fullmatch(r"[0-9]{1,15}", name):
            return int(name)
        if self.has("id-64k-cut"):
            return name[:65535]
        if self.has("id-trimmed"):
            return name.strip()
        return name

    def subscribe(self, kind, name, implicit=False):
        key = self.hub.key(kind, name)
        if key in self.blocked and not implicit:
            return True
        if self.has("prototype-names-lost") and name in PROTOTYPE_NAMES:
            return True
        if key in self.subscriptions:
            return True
        options = self.hub.options
        if len(self.subscriptions) >= options.max_subscriptions \
                or self.subscription_bytes + len(name) > options.max_subscription_bytes:
            return False
        if self.has("task-exclusive") and kind == "task":
            for other in list(self.hub.subscribers.get(key, ())):
                if other.user != self.user:
                    other.drop(key)
        self.add_subscription(key)
        if self.has("sixth-subscription-evicts") and len(self.subscriptions) > 5:
            self.drop(next(iter(self.subscriptions)))
        return True

    def unsubscribe(self, kind, name):
        key = self.hub.key(kind, name)
        if self.has("user-unsubscribe-kept") and kind == "user":
            return
        had = key in self.subscriptions
        if self.has("resubscribe-mute") and had or self.has("unsubscribe-first-blocks") and not had:
            self.blocked.add(key)
            if len(self.blocked) > 1000:
                self.blocked.clear()
        self.drop(key)
        if self.has("unsubscribe-clears-all"):
            for other in list(self.hub.subscribers.get(key, ())):
                other.drop(key)
        if self.has("unsubscribe-for-user"):
            for other in self.hub.of_user(self.user):
                other.drop(key)
        if self.has("unsubscribe-crosses-types"):
            for other_key in [k for k in self.subscriptions if k[1] == key[1]]:
                self.drop(other_key)
        if self.has("unsubscribe-by-prefix"):
            for other_key in [k for k in self.subscriptions if k[0] == kind and k[1].startswith(name)]:
                self.drop(other_key)
        if self.has("project-unsubscribe-tasks-stay") and kind == "project" and had:
            self.hub.lingering.setdefault(key, {})[self] = None

    def add_subscription(self, key):
        if key not in self.subscriptions:
            self.subscriptions[key] = None
            self.subscription_bytes += len(key[1])
            self.hub.subscribers.setdefault(key, {})[self] = None

    def drop(self, key):
        if key in self.subscriptions:
            del self.subscriptions[key]
            self.subscription_bytes -= len(key[1])
        group = self.hub.subscribers.get(key)
        if group is not None:
            group.pop(self, None)
            if not group:
                del self.hub.subscribers[key]
        if self.open and not self.subscriptions:
            self.emptied = True

    def drop_all(self):
        for key in list(self.subscriptions):
            self.drop(key)

    def release(self):
        """Ends the part of this connection in the hub; may be called again."""
        hub = self.hub
        if hub.unfinished is self:
            hub.unfinished = None
        self.parts = []
        if not self.open:
            hub.free_slots(self)
            return
        self.open = False
        abrupt = self.protocol.close_rcvd is None and self.protocol.close_sent is None
        if abrupt and self.has("slot-leak"):
            self.slots = ()
        hub.free_slots(self)
        if self.has("subscriptions-inherited"):
            hub.last_subscriptions[self.user] = list(self.subscriptions)
            if len(hub.last_subscriptions) > 1000:
                hub.last_subscriptions.popitem(last=False)
        if self.has("disconnect-clears-resource"):
            for key in list(self.subscriptions):
                for other in list(hub.subscribers.get(key, ())):
                    other.drop(key)
        if self.has("leave-drops-user-subscriptions"):
            for other in hub.of_user(self.user):
                for key in [k for k in other.subscriptions if k[0] == "user"]:
                    other.drop(key)
        if abrupt and self.has("stops-at-gone"):
            self.gone = True
            return
        for group in hub.lingering.values():
            group.pop(self, None)
        watched = [k for k in self.subscriptions if k[0] == "experiment"]
        self.drop_all()
        if self.has("leave-forgets-experiment"):
            for key in watched:
                if key not in hub.subscribers:
                    hub.experiments.pop(key[1], None)

    # -- outgoing messages ------------------------------------------------------

    def send_error(self, text, kind="answer"):
        if self.has("error-message-cached") and text in self.errors:
            self.send(self.errors[text], kind)
            return
        message = self.errors[text] = self.hub.envelope("error", self.hub.ident("error"))
        if "error-data" in self.hub.variants:
            message["data"] = {"code": text.upper().replace(" ", "_")}
        message["error"] = text
        self.send(message, kind)

    def send(self, message, kind):
        """Sends a message; kind is event, answer, close or other."""
        slow = {"event": "slow-events", "answer": "slow-answers"}.get(kind)
        if slow in self.hub.variants:
            if len(self.delayed) > 10000:
                self.abort()
                return
            self.delayed.append(message)
            self.hub.loop.call_later(0.03, self.send_delayed)
            return
        self.transmit(message)

    def send_staggered(self, message, place):
        """Sends an event later to recipients further behind (variant staggered-delivery)."""
        if len(self.delayed) > 10000:
            self.abort()
            return
        self.delayed.append(message)
        self.hub.loop.call_later(0.04 * min(place, 5), self.send_delayed)

    def send_delayed(self):
        if self.delayed:
            self.transmit(self.delayed.popleft())

    def transmit(self, message):
        if self.protocol.state is not OPEN or self.transport.is_closing():
            return
        if "empty-data" in self.hub.variants:
            message.setdefault("data", {})
        if "extra-members" in self.hub.variants:
            message = {**message, "version": 1}
            if "data" in message:
                message["data"] = {**message["data"], "source": {"hub": [None]}}
        data = self.hub.writer.write(message).encode("utf-8")
        protocol = self.protocol
        if "ws-pings" in self.hub.variants:
            protocol.send_ping(b"hub")
        if "fragments" in self.hub.variants and len(data) > 4:
            cuts = sorted(self.hub.random.sample(range(1, len(data)), 3))
            protocol.send_text(data[:cuts[0]], fin=False)
            protocol.send_continuation(data[cuts[0]:cuts[1]], fin=False)
            protocol.send_continuation(data[cuts[1]:cuts[2]], fin=False)
            protocol.send_continuation(data[cuts[2]:], fin=True)
        else:
            protocol.send_text(data)
        self.flush()


# ---------------------------------------------------------------------------
# The hub: users, limits, routing and controls

class Hub:
    def __init__(self, options):
        self.options = options
        self.bug = options.bug
        self.variants = set(options.variant)
        self.random = random.Random(options.seed)
        self.writer = Writer(self.variants)
        self.loop = None
        self.stopped = None
        self.quiet = logging.getLogger("hub.quiet")
        self.quiet.disabled = True
        self.connections = {}
        self.subscribers = {}
        self.slots = collections.Counter()
        self.experiments = collections.OrderedDict()  # id -> [project, owner, first project]
        self.tasks = collections.OrderedDict()        # id -> experiment id
        self.last_stamp = 0
        self.last_id = 0
        self.started = time.monotonic()
        self.total_connections = 0
        self.total_messages = 0
        self.rate_window = collections.deque(maxlen=1000)
        # state that only bugs use
        self.waiting = {}
        self.unfinished = None
        self.lose_next = None
        self.sticky_refusals = set()
        self.ping_ids = collections.OrderedDict()
        self.last_subscriptions = collections.OrderedDict()
        self.completed = collections.OrderedDict()
        self.project_last = collections.OrderedDict()
        self.previous_task = None
        self.limited = set()
        self.lingering = {}
        self.statuses = collections.OrderedDict()

    def has(self, bug):
        return self.bug == bug

    def remember(self, table, key, value):
        table[key] = value
        table.move_to_end(key)
        if len(table) > MAX_KNOWN:
            table.popitem(last=False)

    # -- parts of messages ------------------------------------------------------

    def ident(self, prefix):
        if "uuid-ids" in self.variants:
            return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        self.last_id += 1
        return f"{prefix}-{self.last_id}"

    def stamp(self):
        """The timestamp part of an event's id; never the same twice."""
        nano = "id-nanoseconds" in self.variants
        now = time.time_ns() // (1 if nano else 10**9 if "id-seconds" in self.variants else 1000000)
        self.last_stamp = max(now, self.last_stamp + 1)
        if "id-iso" in self.variants:
            moment = datetime.datetime.fromtimestamp(self.last_stamp / 1000, datetime.timezone.utc)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return str(self.last_stamp)

    def timestamp(self):
        hours = 2 if "timestamp-offset" in self.variants else 0
        now = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=hours)))
        if "timestamp-basic" in self.variants:
            return now.strftime("%Y%m%dT%H%M%S%z").replace("+0000", "Z")
        spec = "microseconds" if "timestamp-fraction" in self.variants else "seconds"
        return now.isoformat(timespec=spec).replace("+00:00", "Z")

    def envelope(self, kind, ident, data=None):
        message = {"type": kind, "id": ident, "timestamp": self.timestamp()}
        if data is not None:
            message["data"] = data
        return message

    def count_message(self):
        self.total_messages += 1
        self.rate_window.append(time.monotonic())

    def statistics(self):
        now = time.monotonic()
        recent = sum(1 for moment in self.rate_window if moment > now - 10)
        seconds = int(now - self.started)
        latency, uptime = "0.00s", f"{seconds // 3600}h {seconds // 60 % 60}m {seconds % 60}s"
        if "status-formats" in self.variants:
            latency, uptime = "0ms", f"PT{seconds // 3600}H{seconds // 60 % 60}M{seconds % 60}S"
        return {
            "totalConnections": self.total_connections,
            "activeConnections": sum(1 for c in self.connections if c.open),
            "totalMessages": self.total_messages,
            "messagesPerSecond": recent / 10,
            "averageLatency": latency,
            "uptime": uptime,
        }

    # -- users and limits ---------------------------------------------------------

    def of_user(self, user):
        return [c for c in self.connections if c.open and c.user == user]

    def refused_user(self, user):
        """Called for each attempt with an expired token."""
        if self.has("refusal-sticks"):
            self.sticky_refusals.add(user)
        if self.has("refused-counts"):
            self.slots[("user", user)] += 1
        if self.has("refusal-closes-others"):
            for connection in self.of_user(user):
                connection.close(1008, AUTH_INVALID)

    def take_slots(self, connection, token):
        """None, or the error text if a limit is reached."""
        user = connection.user
        if self.has("limit-by-user-prefix"):
            user = user[:8]
        elif self.has("limit-per-token"):
            user = token
        elif self.has("limit-per-endpoint"):
            user = (user, connection.endpoint[0])
        address = "" if self.has("address-shared") else connection.address
        per_user = self.options.per_user - (1 if self.has("tenth-refused") else 0)
        wanted = ((("user", user), per_user), (("address", address), self.options.per_ip),
                  (("all", ""), self.options.max_connections))
        if self.has("limit-refusal-sticky"):
            if not self.slots[("user", user)]:
                self.limited.discard(user)
            elif self.slots[("user", user)] >= per_user:
                self.limited.add(user)
            if user in self.limited:
                return RATE_LIMIT
        if any(self.slots[key] >= limit for key, limit in wanted):
            return RATE_LIMIT
        connection.slots = tuple(key for key, _ in wanted)
        self.slots.update(connection.slots)
        return None

    def free_slots(self, connection):
        slots, connection.slots = connection.slots, ()
        for key in slots:
            self.slots[key] -= 1
            if self.slots[key] <= 0:
                del self.slots[key]

    def unfinished_head(self, asking):
        return any(c.state == "head" and c.buffer and c is not asking and c not in self.waiting
                   for c in self.connections)

    def resume_waiting(self):
        while self.waiting and not self.unfinished_head(None):
            connection = next(iter(self.waiting))
            del self.waiting[connection]
            if connection.state == "head":
                connection.start_socket()

    # -- routing ------------------------------------------------------------------

    def key(self, kind, name):
        """The key of a resource in the table of subscribers."""
        if kind == "system":
            return (kind, "")
        if kind != "user":
            if self.has("id-prefix-32"):
                name = name[:32]
            elif self.has("id-case"):
                name = name.lower()
            elif self.has("id-unicode-form"):
                name = unicodedata.normalize("NFC", name)
            elif self.has("id-trimmed"):
                name = name.strip()
            elif self.has("id-percent-decoded"):
                name = urllib.parse.unquote(name)
            elif self.has("id-numeric-equal") and re.fullmatch(r"[0-9]{1,18}", name):
                name = str(int(name))
        return (kind, name)

    def experiment_keys(self, kind, experiment, event):
        """Project and user subscriptions that an event of an experiment goes to."""
        known = self.experiments.get(experiment)
        if known is None:
            return []
        project, owner, first_project = known
        if kind == "task" and self.has("stale-project"):
            project = first_project
        keys = []
        if project is not None and not (
                self.has("project-last-experiment") and self.project_last.get(project) != experiment
                or self.has("task-failed-project") and event == "task_failed"):
            keys.append(("project", project))
        if owner is not None and not (self.has("experiment-failed-user") and event == "experiment_failed"):
            keys.append(("user", owner))
        return [self.key(*key) for key in keys]

    def routes(self, event, kind, name, experiment):
        if kind == "worker":
            if self.has("worker-offline-system") and event == "worker_offline":
                return [self.key("worker", name)]
            if self.has("worker-task-same-id"):
                return [self.key("worker", name), ("system", ""), self.key("task", name)]
            return [self.key("worker", name), ("system", "")]
        keys = [] if self.has("muted-after-completed") and kind == "experiment" and name in self.completed \
            else [self.key(kind, name)]
        if kind == "task" and experiment is not None:
            keys.append(self.key("experiment", experiment))
        keys += self.experiment_keys(kind, experiment, event)
        if self.has("user-subscriber-hides-project") and kind == "experiment" \
                and any(k[0] == "user" and k in self.subscribers for k in keys):
            keys = [k for k in keys if k[0] != "project"]
        if self.has("task-gets-progress") and event == "experiment_progress":
            keys += [self.key("task", task) for task, owner in self.tasks.items() if owner == name]
        if self.has("user-prefix-match"):
            owner = self.experiments.get(experiment, (None, None))[1]
            if owner:
                keys += [k for k in self.subscribers if k[0] == "user" and owner.startswith(k[1])]
        return keys

    def recipients(self, event, kind, name, experiment):
        if kind == "system":
            chosen = [c for c in self.connections if c.open]
            if "system-to-subscribers" in self.variants:
                chosen = [c for c in chosen if c.subscriptions]
            if self.has("status-skips-projects"):
                chosen = [c for c in chosen if c.endpoint[0] != "project"]
            if self.has("emptied-loses-system"):
                chosen = [c for c in chosen if not c.emptied]
            return chosen
        chosen, matches = {}, []
        for key in self.routes(event, kind, name, experiment):
            group = list(self.subscribers.get(key, ()))
            if kind == "task":
                group += [c for c in self.lingering.get(key, ()) if c not in group]
            matches += group
            if key == ("system", "") and self.has("first-system-subscriber"):
                group = group[:1]
            for connection in group:
                if connection.gone:
                    connection.drop_all()
                    return list(chosen)
                chosen[connection] = None
        if self.has("task-overlap-twice") and kind == "task":
            return matches
        if self.has("once-per-user"):
            return list({c.user: c for c in chosen}.values())
        return list(chosen)

    def learn(self, event, kind, body):
        """Keeps what routing needs; returns (resource id, experiment id)."""
        def text(member):
            value = body.get(member)
            return value if isinstance(value, str) else None

        if kind == "system":
            return "", None
        name = text(kind + "Id") if event.endswith("_progress") else text("id")
        if name is None:
            raise ValueError(f"{event}: the id must be a string")
        if kind == "experiment":
            known = self.experiments.get(name)
            project, owner = text("projectId"), text("ownerId")
            if known is None:
                known = [project, owner, project]
                if project is not None:
                    self.remember(self.project_last, project, name)
            else:
                known = [known[0] if project is None else project, known[1] if owner is None else owner, known[2]]
            self.remember(self.experiments, name, known)
            return name, name
        if kind == "task":
            experiment = text("experimentId")
            if self.has("task-experiment-frozen"):
                experiment = self.tasks.get(name, experiment)
            if experiment is None:
                experiment = self.tasks.get(name)
            if experiment is not None:
                self.remember(self.tasks, name, experiment)
            return name, experiment
        return name, None

    def payload(self, event, kind, body):
        status = EVENT_TYPES[event][1]
        if kind == "system":
            return {**self.statistics(), **body}
        if status is None:
            return {**body, "lastUpdated": body.get("lastUpdated", self.timestamp())}
        full = dict(body)
        full.setdefault("status", status)
        members = SUMMARY[kind] + (("error",) if event == "task_failed" else ())
        summary = {member: full[member] for member in members if member in full}
        if self.has("failed-summary-no-error") and event == "task_failed" and not full.get("workerId"):
            summary.pop("error", None)
        if self.has("summary-of-previous") and event == "task_updated":
            before, self.previous_task = self.previous_task, (full["id"], full.get("workerId"))
            if before and before[0] != full["id"]:
                summary["workerId"] = before[1]
        return {kind: full, "summary": summary}

    def spoil(self, value, event):
        """Applies the bugs about values to the payload of an event."""
        if isinstance(value, dict):
            result = {}
            for name, member in value.items():
                if member == "" and self.has("empty-string-missing"):
                    continue
                if is_number(member) and member == 0 and self.has("zero-missing") and event.endswith("_progress"):
                    continue
                result[name] = self.spoil(member, event)
            return result
        if isinstance(value, list):
            return [self.spoil(member, event) for member in value]
        if value is None and self.has("null-becomes-empty") and event.endswith("_updated"):
            return ""
        if isinstance(value, float) and self.has("fraction-rounded"):
            return round(value, 1)
        if not isinstance(value, str):
            return value
        if self.has("literal-strings-typed") and value in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[value]
        if self.has("crlf-normalised"):
            return value.replace("\r\n", "\n")
        if self.has("escape-twice"):
            return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), value)
        if self.has("date-renormalised") and DATE_TIME.fullmatch(value):
            return whole_seconds(value)
        if self.has("markup-escaped"):
            return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        if self.has("nul-cuts"):
            return value.partition("\0")[0]
        if self.has("cut-at-255"):
            return value[:255]
        if self.has("astral-replaced"):
            return "".join("?" if ord(c) > 0xFFFF else c for c in value)
        return value

    def publish(self, event, body, burst=None):
        """Sends one event to all that it is for; returns its id and their number."""
        kind = EVENT_TYPES[event][0]
        unknown = kind == "experiment" and event != "experiment_created" \
            and body.get("experimentId" if event.endswith("_progress") else "id") not in self.experiments
        name, experiment = self.learn(event, kind, body)
        data = self.spoil(self.payload(event, kind, body), event)
        self.writer.write(data)  # what cannot be written is refused before it is sent to anyone
        prefix, ident_name = {"experiment": "exp"}.get(kind, kind), name
        if self.has("task-progress-prefix") and event == "task_progress":
            prefix, ident_name = "exp", experiment
        if self.has("burst-first-id") and burst is not None and kind == "task":
            ident_name = burst.setdefault("task", name)
        if self.has("ident-cut-at-underscore"):
            ident_name = ident_name.partition("_")[0]
        stamp = self.stamp()
        if self.has("burst-same-id") and burst is not None:
            stamp = burst.setdefault((kind, name), stamp)

        def new_ident(stamp):
            return f"system_{stamp}" if kind == "system" else f"{prefix}_{ident_name}_{stamp}"

        message = self.envelope(event, new_ident(stamp), data)
        recipients = self.recipients(event, kind, name, experiment)
        if event == "experiment_completed":
            self.remember(self.completed, name, True)
        if self.has("learned-from-created-only") and unknown:
            del self.experiments[name]
        if self.has("same-status-suppressed") and kind == "experiment" and "experiment" in data:
            status = data["experiment"]["status"]
            if event == "experiment_updated" and self.statuses.get(name) == status:
                recipients = []
            self.remember(self.statuses, name, status)
        direct = self.subscribers.get(self.key(kind, name), ()) if self.has("second-group-no-summary") else ()
        if self.lose_next is not None:
            recipients = [c for c in recipients if c is self.lose_next]
            self.lose_next = None
        self.count_message()
        for place, connection in enumerate(recipients):
            own = message
            if direct and connection not in direct and "summary" in data:
                own = {**message, "data": {k: v for k, v in data.items() if k != "summary"}}
            if "id-per-delivery" in self.variants:
                own = {**message, "id": new_ident(self.stamp())}
            if "staggered-delivery" in self.variants:
                connection.send_staggered(own, place)
            else:
                connection.send(own, "event")
        return {"id": message["id"], "recipients": len(recipients)}

    def heartbeat(self):
        for connection in list(self.connections):
            if not connection.open:
                continue
            if self.has("heartbeat-once") and connection.pong_seen:
                continue
            if self.has("heartbeat-skips-tasks") and connection.endpoint[0] == "task":
                continue
            if "drop-silent" in self.variants and connection.unanswered_pings >= 20:
                connection.close(1008, "no answer to pings")
                continue
            connection.unanswered_pings += 1
            connection.send(self.envelope("ping", self.ident("ping")), "other")
            if self.has("silent-stops-heartbeat") and connection.unanswered_pings > 1:
                break

    # -- controls -------------------------------------------------------------------

    def control(self, name, body):
        if name in EVENT_TYPES:
            return self.publish(name, body)
        handler = {"burst": self.control_burst, "token": self.control_token, "heartbeat": self.control_heartbeat,
                   "close": self.control_close, "stats": self.control_stats,
                   "shutdown": self.control_shutdown}.get(name)
        if handler is None:
            raise LookupError(f"no control {name}")
        return handler(body)

    def control_burst(self, body):
        events = body.get("events")
        if not isinstance(events, list) or not all(
                isinstance(e, dict) and e.get("type") in EVENT_TYPES and isinstance(e.get("body"), dict)
                for e in events):
            raise ValueError('events must be a list of {"type", "body"}')
        events = list(events)
        if self.has("burst-reordered") and len(events) >= 6:
            events[4], events[5] = events[5], events[4]
        if self.has("burst-grouped"):
            def about(event):
                body = event["body"]
                kind = EVENT_TYPES[event["type"]][0]
                return kind, str(body.get("id", body.get(kind + "Id")))
            first = [about(e) for e in events]
            events.sort(key=lambda e: first.index(about(e)))
        burst = {}
        return {"events": [self.publish(e["type"], e["body"], burst) for e in events]}

    def control_token(self, body):
        user = body.get("user", "user-456")
        seconds = body.get("expiresIn", 3600)
        claims, header = body.get("claims", {}), body.get("header")
        if not isinstance(user, str) or not is_number(seconds) or not isinstance(claims, dict):
            raise ValueError("user: string, expiresIn: number, claims: object")
        now = int(time.time())
        claims = {self.options.user_claim: user, "iat": now, "exp": now + seconds, **claims}
        return {"token": make_token(self.options.secret, claims, header)}

    def control_heartbeat(self, body):
        self.heartbeat()
        return {}

    def control_close(self, body):
        user, code = body.get("user"), body.get("code", 1000)
        if not isinstance(code, int) or not (code in (1000, 1001, 1008, 1011, 1012, 1013) or 3000 <= code < 5000):
            raise ValueError("code must be a code that may be sent")
        chosen = [c for c in self.connections if c.open and user in (None, c.user)]
        for connection in chosen:
            connection.close(code, "closed by the operator")
        return {"closed": len(chosen)}

    def control_stats(self, body):
        return {"statistics": self.statistics(), "subscriptions": len(self.subscribers)}

    def control_shutdown(self, body):
        self.loop.call_later(0.05, self.stopped.set)
        return {}

    # -- life ------------------------------------------------------------------------

    async def every(self, seconds, action):
        while True:
            await asyncio.sleep(seconds)
            action()

    async def run(self):
        self.loop = asyncio.get_running_loop()
        self.stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stopped.set)
        server = await self.loop.create_server(lambda: Connection(self), "127.0.0.1", self.options.port, backlog=512)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        interval = self.options.ping_interval
        if "frequent-heartbeat" in self.variants:
            interval = 0.05
        elif "drop-silent" in self.variants:
            interval = 0.1
        tasks = [self.loop.create_task(self.every(interval, self.heartbeat))]
        status = 0.1 if "frequent-status" in self.variants else self.options.status_interval
        if status > 0:
            tasks.append(self.loop.create_task(self.every(status, lambda: self.publish("system_status", {}))))
        await self.stopped.wait()
        server.close()
        for task in tasks:
            task.cancel()
        for connection in list(self.connections):
            if connection.state == "socket":
                connection.close(1001, "shutting down")
        deadline = time.monotonic() + 0.5
        while any(c.state == "socket" for c in self.connections) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()


def parse_options(arguments):
    parser = argparse.ArgumentParser(description="Message hub of the Airavata Scheduler (WebSocket protocol).")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--bug", choices=[b[0] for b in BUGS], metavar="NAME", help="plant one bug (see --list)")
    parser.add_argument("--variant", action="append", default=[], choices=[v[0] for v in VARIANTS], metavar="NAME",
                        help="switch on a legal variant; repeatable (see --list)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument("--secret", default="airavata-secret", help="key of the tokens (HS256)")
    parser.add_argument("--user-claim", default="sub", help="claim that names the user")
    parser.add_argument("--ping-interval", type=float, default=30.0, help="seconds between ping messages")
    parser.add_argument("--status-interval", type=float, default=0.0, help="seconds between system_status; 0: none")
    parser.add_argument("--rate-limit", type=int, default=2000, help="messages per second and connection; 0: none")
    parser.add_argument("--per-user", type=int, default=10, help="concurrent connections of a user")
    parser.add_argument("--per-ip", type=int, default=50, help="concurrent connections of an address")
    parser.add_argument("--max-connections", type=int, default=1000, help="concurrent connections")
    parser.add_argument("--max-message", type=int, default=2**20, help="bytes of a message")
    parser.add_argument("--max-subscriptions", type=int, default=1000, help="subscriptions of a connection")
    parser.add_argument("--max-subscription-bytes", type=int, default=4 * 2**20,
                        help="characters of all resource ids that a connection subscribes to")
    parser.add_argument("--list", action="store_true", help="print bugs and variants as JSON and end")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_options(arguments)
    if options.list:
        bugs = [dict(zip(("name", "kind", "line", "sentence", "does", "seen"), b)) for b in BUGS]
        variants = [dict(zip(("name", "does", "why"), v)) for v in VARIANTS]
        print(json.dumps({"bugs": bugs, "variants": variants}, indent=1, ensure_ascii=False))
        return 0
    asyncio.run(Hub(options).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
