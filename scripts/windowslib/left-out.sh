# shellcheck shell=bash disable=SC2034 # sourced by `stage`
# Sourced: tests that scripts/windows leaves out, by parts of their names, and why.

UNIT_LEFT_OUT=(
  # Minutes of CPU for state machines that make no system call (clippy.toml): the same as on Linux.
  protocol::tests::virtual_network
  link::tests::half_open_sockets_are_replaced link::tests::slow_and_lossy_paths_raise_no_false_alarm
  # Wine (8.0) binds a UDP socket to any address; Windows refuses with WSAEADDRNOTAVAIL.
  only_an_address_of_this_machine_can_be_bound
  # Wine shuts a socket down before it closes it: despite its linger of zero the peer reads an end, not a reset.
  a_reset_is_reported_as_one
  a_connection_that_is_dropped_before_its_end
)

COMPAT_LEFT_OUT=(
  # Limits, socket files and clients of UNIX.
  ^port::limits:: ^port::sockets:: ^network::clients:: version_starts_no_runtime
  # Wine hands on no signal but SIGINT.
  quit_and_stop_keys
  # A bound on speed, which is wine's.
  a_long_upload
  # Only Linux reports the owner of a connection or port; socket files are refused.
  clients_of_other_users the_owner_of_a_taken_port a_socket_file_is_a_proxy
  # Minutes of wine's for what the other tests of links do in seconds.
  a_stalled_reader never_reads survives_50_deaths
  # 1,024 sockets or 33 sessions keep wine busy for longer than an end may take (2 s).
  a_connection_too_many forty_destinations at_most_32_destinations sixty_hosts_
  # Of 300 or 400 clients at once some are reset on a busy machine: wine has not read their requests after the 250 ms in which
  # a client is not replaced by a newer one.
  four_hundred_clients_before endless_heads_are_bounded
  # An agent this old is ended by the API alone, for which wine on a busy machine needs longer than an end may take (2 s).
  ^port::old_agent_2_3$
  # The end of a connection shows on Windows when all before it has been read, which a client that waits for a session is
  # not; it is closed after a minute.
  a_client_that_goes_away_after
  # The memory of wine's process is wine's.
  hostile_clients
  # all_proxy is ALL_PROXY on Windows, and is said so.
  an_unusable_all_proxy
  # Wine hands on no HOME, and its USERPROFILE is a folder of its own.
  when_the_profile_names_it credentials_are_looked_up_while
  # Wine's server opens the sockets, outside the test's network namespace.
  moves_to_the_new_address
  # Wine draws its console on the terminal, with lines broken at the width.
  shown_on_a_terminal_only shown_in_place_and_removed
)
