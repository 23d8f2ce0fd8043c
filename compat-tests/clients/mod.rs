//! Unchanged clients: the AWS CLIs, OpenSSH, PostgreSQL.

mod aws_cli;
mod postgres;
mod ssh;
