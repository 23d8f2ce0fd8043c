//! A `session-manager-plugin` for the AWS CLI: shells, commands, forwarded ports and SSH over AWS Systems Manager.
//!
//! The program takes the argv of the AWS CLI ([`cli`]), opens the data channel that StartSession named ([`link`]), and
//! runs the kind of session that the agent announces ([`session`]). The protocol itself ([`protocol`]) is a set of
//! state machines without clock, socket or task, usable from other programs.
//!
//! # For other programs
//!
//! [`Forward`] forwards a port and [`Command`] runs a command from within another program; [`forward`] and [`remote_command`]
//! describe them. Without the feature `cli` only they and the modules below them are compiled. What follows is the book of
//! the code.
//!
//! # Layers
//!
//! ```text
//! program
//! help  manual
//! commands
//! doctor
//! forward  remote_command
//! embedding
//! session
//! cli  output  logging
//! settings
//! link
//! aws  wire_log  term
//! protocol  smux
//! process  secret  ca_bundle  panics
//! files  printable  queue  spool  destination  quote  blocking
//! version
//! ```
//!
//! Each module uses those on lower lines only, and no two files use each other in a circle; a test reads the `use`
//! lines and checks both.
//!
//! | module | what it knows |
//! |---|---|
//! | [`program`] | the order of a run: arguments, settings, log, session |
//! | [`help`], [`manual`] | `--help` and the manual page, from the tables of commands, settings and events |
//! | [`cli`] | the positional argv contract |
//! | [`settings`] | every setting of our own, with its default |
//! | [`output`] | everything that is printed: what callers parse, byte for byte, events, the console |
//! | [`session`] | one loop per kind of session: shell, SSH streams, forwarded ports |
//! | [`link`] | one websocket after another, with a clock: opening, pings, reconnecting |
//! | [`protocol`] | envelope, handshake, delivery, pacing, encryption |
//! | [`smux`] | many connections over the bytes of one channel |
//! | [`aws`] | credentials, signing the open, resume, terminate, data keys, by the AWS SDK |
//! | [`term`] | raw mode, size, standard streams |
//! | [`process`] | signals, the parent process, environment, arguments, descriptors |
//! | [`queue`] | bytes that wait for a reader, and the memory that they hold |
//! | [`spool`] | a queue to a thread that writes to a disk |
//! | [`blocking`] | work that blocks, on threads that the system may refuse |
//! | [`files`] | bounded reads of files that the user's settings name |
//! | [`ca_bundle`] | a file of CA certificates, as the AWS CLI reads it |
//! | [`panics`] | panics of AWS code, contained; all others, reported |
//! | [`commands`] | sessions without the AWS CLI: `ssh`, `shell`, `run`, `start-session` |
//! | [`forward`], [`remote_command`], [`embedding`] | ports and commands for other programs: their builders, errors and thread |
//! | [`doctor`] | checks for common problems, with advice |
//! | [`logging`], [`wire_log`] | diagnostics and recorded frames, to files, off by default |
//! | [`destination`] | the destination of a forwarded port, and the request for it |
//! | [`quote`] | words for a POSIX shell |
//! | [`printable`] | text from outside on one line, without control characters |
//! | [`secret`], [`version`] | a string that is never printed; the versions that are reported |
//!
//! `.github/CONTRIBUTING.md` says where a payload type, a setting or a kind of session is added, and how
//! tests are run.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | data channel | the conversation with the agent, from handshake to close; outlives a websocket |
//! | websocket | one TCP connection to the service that carries the channel's frames, until it is lost |
//! | link | a data channel together with the websockets that carry it |
//! | connection | in `link`: the state behind a link; in `session::port`: a local client; in status lines: the websocket |
//! | stream | one of the smux streams in a channel; each carries one local connection |
//! | destination | in `session::port`: the host and port behind a local port, with the sessions to it |
//! | forwarder | the state machine that assigns connections to sessions; the pump carries its decisions out |
//! | `LiveSession` | a session that exists at the service: its id, its link, its opening handshake, and what can end it |
//!
//! # Where a byte goes
//!
//! *Typed.* The terminal in raw mode → the stdin thread → a bounded queue → the shell's loop, whose arm for input is
//! open only while [`link::Link::wants_input`]; it filters the escapes that begin with `~` → [`link::Link::send`] →
//! [`protocol::Channel::send`], where it waits to be joined with others into one message →
//! [`protocol::Channel::poll_transmit`], when window, rate and socket allow: encrypted, numbered, encoded once; one handle
//! on the frame is kept until it is acknowledged → websocket, flushed when a burst ends. Its acknowledgement removes it,
//! feeds the round-trip time (rarely if it was sent twice: `protocol::rtt`) and opens the window. While the websocket is
//! lost, input waits in the channel (two messages), then in that queue, then in the terminal.
//!
//! *Printed.* Websocket → [`protocol::Channel::handle_frame`]: decoded without a copy, acknowledged, put in order
//! (a duplicate is acknowledged again and dropped, an early one acknowledged and held), decrypted →
//! [`protocol::Event::Output`] → the shell's loop → a bounded queue → stdout. While that queue is full no more frames
//! is read, so the agent's sending stops; timers, pings and our own sending continue.
//!
//! *Forwarded.* A local connection has a task that owns its socket. Upwards the task hands over one chunk and waits to be
//! asked for more → [`smux::Session::send`], a bounded queue per stream →
//! [`smux::Session::poll_transmit`], which fills messages across streams, in turns → the channel as above.
//! Downwards [`smux::Session::handle_bytes`] gives each stream's bytes to its connection's queue; one slow
//! reader stops no other until it holds 64 MiB of memory (all together: 256 MiB; `SSM_PLUGIN_BUFFER`), then its session waits.
//! Nothing is dropped. Sessions, and connections with the place of each, are tables of one state machine (`session::port::core`).
//!
//! *At the other end* the agent resolves the destination's name once, when the session begins, and dials those addresses
//! for every later connection, one after the other inside its accept loop. So a name whose address changes wants a new
//! session, and a destination that does not answer holds up the session's new connections, not the open ones.
//!
//! # Round trips
//!
//! Time on a long path is counted in round trips. A session takes these and no others:
//!
//! | step | round trips | why |
//! |---|---|---|
//! | name | 1, to the resolver | both address families are requested at once |
//! | TCP | 1 | |
//! | proxy, if there is one | HTTP 1; SOCKS5 2, with a password 3 | the tunnel's request and answer; SOCKS5 agrees on a method first |
//! | TLS 1.3 | 1 | the client's last message goes out with the next request |
//! | upgrade | 1 | the service reads no frame before it has answered |
//! | opening frame | 1 | brings the agent's handshake request |
//! | handshake | 1 | our response brings the agent's completion |
//! | encryption, if the agent wants it | 1, and those of a call to KMS | the challenge; the data key is fetched while the link lives |
//!
//! | from exec to | round trips, without name, proxy and encryption |
//! |---|---|
//! | `Port … opened` | 5 |
//! | an ssh banner, a command's output | 5, and what the instance takes: they follow the completion |
//! | a shell's prompt | 4 where the agent makes no handshake (plain shells), else 5 |
//! | the first byte of a forwarded connection | 1 more: the request goes out with the stream's first frame |
//! | the first byte after a lost websocket | 3 for ResumeSession (TCP, TLS, the call), then 4 up to the opening frame's answer |
//!
//! Credentials are looked up during the steps up to TLS, so keys, a profile's process or the AWS CLI's cache add nothing;
//! a role or SSO profile without credentials in that cache adds what STS or SSO take beyond those steps. In the moment
//! after its handshake an agent acknowledges and ignores input (`protocol::settling`). The first message of a forwarded
//! connection need not wait for that, since it is repeated in such a way that it counts once (`smux::session::tentative`).
//! What does not fit in it, and the input of other sessions, waits until 20 ms have passed between the end of the handshake and
//! its arrival, or until the first output; a path of 20 ms and later input wait for nothing.
//!
//! # Invariants
//!
//! 1. [`protocol`], [`smux`] and `session::port::core` read no clock, environment or random source and never block; lints
//!    deny the calls that `clippy.toml` lists.
//! 2. In this program only [`link`] calls a [`protocol::Channel`]. A link is one poll
//!    function: an attempt to open is a future that it polls, so nothing waits for anything else.
//! 3. During a session only [`session`] writes to stdout, through one console ([`program`] prints what needs no
//!    session); SSH sessions keep it to the remote's bytes.
//! 4. The process ends in `main` and nowhere else; an ending is a value that unwinds through the raw-mode guard.
//! 5. Nothing from the network panics the process: lengths are checked, unreadable frames are counted and dropped.
//! 6. Every buffer has a limit with a name, counted in what it holds ([limits](#limits)). Unacknowledged data is never dropped
//!    to keep one.
//! 7. A message once numbered never changes: the agent may have it although its acknowledgement was lost.
//! 8. `unsafe` appears only in [`term`] and [`process`], each block with its reason.
//! 9. The token, credentials and data keys are in no log line, error text or panic message.
//!
//! # Limits
//!
//! *Memory* is what is allocated, as [`queue`] counts it; *bytes* are counted without what surrounds them, where their number
//! is limited, too. With default settings and any one hostile peer the process stays below 400 MiB, and near 8 MiB at rest
//! (release build; a debug build has some 15 more).
//!
//! | limit | of | is | at the limit | test |
//! |---|---|---|---|---|
//! | `MAX_FRAME` | one frame of the websocket | 1 MiB | the websocket is closed | `frames_that_are_too_large` |
//! | `MAX_WRITE_BUFFER` | frames on their way to the websocket | 1.25 MiB | nothing more is sent | `a_peer_that_reads_nothing` |
//! | `MAX_HELD_BYTES`, `MAX_HELD` | early messages of a channel | 16 MiB; 10,000 | they are refused, and come again | `bounds_refuse_without_acknowledging` |
//! | `ALL_EARLY` | early messages of all sessions behind ports | 64 MiB; each may have 256 KiB | the same | `all_together_hold_no_more_than_the_limit_and_their_least_shares` |
//! | `MAX_WAITING` | acknowledgements to be sent | 8,192 | messages are dropped, and come again | `acknowledgements_that_are_not_taken_are_bounded` |
//! | `MAX_WINDOW`, `MAX_OUTSTANDING` | unacknowledged messages | 256 KiB (`SSM_PLUGIN_WINDOW`); 1,000 | nothing new is sent | `window_bounds_what_is_unacknowledged` |
//! | `MAX_ANSWERS` | answers in the handshake | 16 | the newest are dropped | `answers_that_are_not_taken_are_bounded` |
//! | `STDIN_CHUNKS` | read ahead from stdin | 4 of 64 KiB | stdin is not read | `the_thread_stops_reading_at_its_bound` |
//! | `OUTPUT_QUEUE` | waiting for stdout | 1 MiB of memory | the channel is not read; repeated notices are dropped | `stdout_of_a_shell_that_is_not_read` |
//! | `ERR_QUEUE` | waiting for stderr | 1 MiB of memory for status, 2 MiB in all | lines are dropped and counted | `control_messages_while_json_on_stderr_is_not_read` |
//! | `MAX_STREAMS` | connections of a session | 1,024 | the listener waits | `streams_are_bounded` |
//! | `MAX_HALF_CLOSED` | connections of a session whose client has half-closed | 256 | the oldest is reported to the agent at once, and its client reset | `many_half_closed_streams_are_not_kept_waiting` |
//! | `CHUNK` | read from one connection | 16 KiB | it is not read | `a_chunk_comes_only_when_requested` |
//! | `DEFAULT_SEND_BUFFER` | waiting for the agent, per stream | 32 KiB | the connection is not read | `streams_are_bounded_until_they_are_over` |
//! | `ALL_PER_EACH` | waiting for slow clients | 64 MiB of memory each (`SSM_PLUGIN_BUFFER`), 4 times that in all | the session's channel is not read | `a_client_that_does_not_read`, `clients_that_do_not_read_together` |
//! | `MIN_SESSION`, `FULL_SHARES` | of these, for one session in any case | 4 MiB of memory; 32 MiB for all sessions | its channel is not read | `the_shares_of_many_sessions_are_smaller` |
//! | `ALL_PER_EACH`, `PATIENCE` | of these, for clients whose connection the remote or the session has ended | as for all; 60 s in which the client reads nothing | the client that has been idle for longest is reset | `clients_that_do_not_read_one_after_the_other`, `clients_of_ended_sessions_that_do_not_read`, `a_released_reader_that_takes_nothing_is_reset` |
//! | `MAX_REQUEST` | the request of a proxy client | 8 KiB | it is refused | `endless_heads_are_bounded_in_time_and_bytes` |
//! | `MAX_EARLY` | sent by an old agent's destination before there is a client | 1 MiB of memory | the channel is not read | `a_basic_port_without_a_client` |
//! | `CAPACITY`, `BACKLOG` | an embedding program's stream; streams that wait for the pump | 64 KiB each way; 128 | a write waits; `connect` fails | `bytes_arrive_in_order_and_wait_for_room`, `more_connections_than_wait_are_refused` |
//! | `MAX_EVENTS` | events that an embedding program does not take | 256 | the oldest are dropped and counted | `events_that_are_not_taken_are_counted` |
//! | `MAX_OUTPUT` | output that `Command::run` keeps | 64 MiB (`max_output`) | the command is ended | `output_has_a_bound` |
//! | `MAX_LINKS`, `MAX_ENDING` | sessions being ended | 8 with their links; 256 | the service ends them; the rest is left to its timeout | `a_few_sessions_that_are_being_ended_keep_their_links` |
//! | `MAX_BODY` | an answer of AWS or a metadata service | 1 MiB | the call fails | `endless_answers`, `an_endless_answer_of_start_session` |
//! | `LOG_QUEUE` | waiting for the log's disk | 4 MiB of memory | lines are dropped and counted | `a_disk_that_takes_nothing_costs_bounded_memory` |
//! | `WIRE_LOG_QUEUE` | waiting for the wire log's disk | 16 MiB of memory | frames are dropped and counted | `a_queued_frame_keeps_no_read_buffer_and_a_line_counts` |

#![allow(rustdoc::private_intra_doc_links, reason = "the book leads to private modules, too")]
// What other programs can use is `pub`, all else says how far it reaches.
#![warn(unreachable_pub)]
#![cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "the program alone uses some parts of shared modules")
)]

pub mod aws;
mod blocking;
mod ca_bundle;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
mod commands;
mod destination;
#[cfg(feature = "cli")]
mod doctor;
mod embedding;
mod files;
pub mod forward;
#[cfg(feature = "cli")]
mod help;
pub mod link;
#[cfg(feature = "cli")]
mod logging;
#[cfg(feature = "cli")]
mod manual;
mod output;
mod panics;
mod printable;
mod process;
#[cfg(feature = "cli")]
mod program;
pub mod protocol;
mod queue;
mod quote;
pub mod remote_command;
mod secret;
mod session;
#[cfg(feature = "cli")]
mod settings;
pub mod smux;
mod spool;
#[cfg(feature = "cli")]
mod term;
mod version;
mod wire_log;

pub use embedding::Error;
pub use forward::Forward;
#[cfg(feature = "cli")]
pub use program::main;
pub use remote_command::Command;
pub use secret::Secret;
pub use version::COMPATIBLE_VERSION;
