//! The commands, their arguments and their help: the one definition from which parser, help, completion and manual come.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::doctor;

/// First arguments that mean a command of ours.
pub(super) const NAMES: &[&str] =
    &["ssh", "ssh-config", "forward", "shell", "run", "start-session", "doctor", "completions", "help", "-V"];

/// The definition of all commands.
pub(super) fn command() -> Command {
    Command::new(PROGRAM)
        .about("Shells, SSH, forwarded ports and commands over AWS Systems Manager, without the AWS CLI.")
        .disable_version_flag(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "A TARGET is an instance id (i-… or mi-…), ecs:CLUSTER_TASK_RUNTIME, a Name tag, a computer name,\nor \
             tag:KEY=VALUE. Options of a command: session-manager-plugin help COMMAND.",
        )
        .subcommands([shell(), ssh(), ssh_config(), forward(), run(), start_session(), doctor(), completions()])
}

fn shell() -> Command {
    with_common(sub("shell", "TARGET", "Open a shell.")).arg(target()).args(document_args()).after_help(
        "Examples:\n  session-manager-plugin shell i-0123456789abcdef0\n  session-manager-plugin shell web-1 \
             --region eu-west-1 --wait",
    )
}

fn ssh() -> Command {
    with_common(sub("ssh", "TARGET [PORT]", "Connect stdin and stdout to the SSH server of a target."))
        .long_about(
            "Connect stdin and stdout to the SSH server of a target, for use as ProxyCommand in ~/.ssh/config. Nothing else \
             is printed on stdout.",
        )
        .arg(target())
        .arg(
            Arg::new("port")
                .value_name("PORT")
                .value_parser(number(1..=u16::MAX, "a port number"))
                .help("Port of the SSH server [default: 22]"),
        )
        .arg(push_key_arg("or, with --identity-agent, a temporary key"))
        .arg(
            Arg::new("user")
                .long("user")
                .value_name("NAME")
                .value_parser(not_empty)
                .help("User on the instance for whom --push-key sends the key; in ProxyCommand, write --user %r [default: ec2-user]"),
        )
        .arg(
            Arg::new("identity-agent")
                .long("identity-agent")
                .value_name("SOCKET")
                .value_parser(not_empty)
                .help(
                    "Create an ssh agent on this socket that offers the keys of your ssh agent, and a temporary key if \
                     --push-key finds none. Set IdentityAgent in ~/.ssh/config to the same path",
                ),
        )
        .after_help(
            "In ~/.ssh/config:\n  Host i-* mi-*\n    ProxyCommand session-manager-plugin ssh %h %p\nThen:\n  \
             ssh ec2-user@i-0123456789abcdef0",
        )
}

fn ssh_config() -> Command {
    with_common(sub("ssh-config", "[PATTERN]...", "Print a Host block for ~/.ssh/config."))
        .long_about(
            "Print a Host block for ~/.ssh/config. The options of ssh-config become part of the block's ProxyCommand, and take \
             effect when ssh connects.",
        )
        .arg(
            Arg::new("pattern")
                .value_name("PATTERN")
                .num_args(0..)
                .value_parser(not_empty)
                .help("Host patterns of the block [default: i-* mi-*]"),
        )
        .arg(push_key_arg("or a temporary key"))
        .after_help(
            "Examples:\n  session-manager-plugin ssh-config >>~/.ssh/config\n  session-manager-plugin ssh-config 'i-*' \
             'prod-*' --profile prod --push-key",
        )
}

/// `last` is what is taken when there is no key.
fn push_key_arg(last: &str) -> Arg {
    Arg::new("push-key")
        .long("push-key")
        .value_name("FILE")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("")
        .help(format!(
            "Before connecting, send the public key in FILE to EC2 Instance Connect; the instance accepts it for a minute \
             [without FILE, the first that exists: a key of the ssh agent, ~/.ssh/id_ed25519.pub, ~/.ssh/id_rsa.pub, {last}]",
        ))
}

fn forward() -> Command {
    with_common(sub("forward", "TARGET [SPEC]... [-D PORT] [-- COMMAND [ARGUMENT]...]", "Forward local ports."))
        .long_about(
            "Forward local ports to hosts that the target can reach, or to the target itself. The ports stay open when a \
             session ends: the next connection starts a new session. With COMMAND, open the ports, run COMMAND, close the \
             ports and exit with the status of COMMAND. COMMAND gets the port numbers in the environment variables PORT_1, \
             PORT_2 and so on. In its arguments, {port_1}, {port_2} and so on are replaced with them. The variable PORT and \
             the placeholder {port} stand for the first port; SOCKS_PORT and {socks_port} stand for the port of -D. TARGET may also be the NAME of a [tunnels.NAME] \
             section in config.toml, which sets target, forwards, profile, region, socks and sessions.",
        )
        .arg(target())
        .arg(
            Arg::new("spec")
                .value_name("SPEC")
                .num_args(0..)
                .value_parser(not_empty)
                .help("[BIND:]PORT:HOST:HOSTPORT for a host that the target can reach, PORT:HOSTPORT for the target itself, or \
                     SOCKET:HOST:HOSTPORT to listen on a local socket file. PORT 0 picks a free port. SOCKET must contain a slash (./db.sock)"),
        )
        .arg(
            Arg::new("local")
                .short('L')
                .value_name("SPEC")
                .action(ArgAction::Append)
                .value_parser(not_empty)
                .help("Same as the argument SPEC, for users of ssh -L; may be repeated"),
        )
        .arg(
            Arg::new("dynamic")
                .short('D')
                .value_name("[BIND:]PORT")
                .value_parser(not_empty)
                .help("Also open a SOCKS and HTTP proxy on this loopback port"),
        )
        .arg(
            Arg::new("eager")
                .long("eager")
                .action(ArgAction::SetTrue)
                .help("Start the sessions of all SPECs immediately, and exit if one cannot start"),
        )
        .arg(
            Arg::new("sessions")
                .long("sessions")
                .value_name("N")
                .value_parser(number(1..=8_u64, "a number from 1 to 8"))
                .help("Number of sessions that share each port, 1 to 8 [default: 1]"),
        )
        .mut_arg("wait", |wait| {
            wait.help("If the target's agent is not connected to Systems Manager, connections wait for it for at most SECONDS; with --eager, the program waits before it is ready [without SECONDS: 300]")
        })
        .arg(
            trailing_command()
                .help("Program to run while the ports are open"),
        )
        .after_help(
            "Examples:\n  session-manager-plugin forward web-1 15432:db.internal:5432 8080:80\n  session-manager-plugin \
             forward web-1 -D 1080\n  session-manager-plugin forward web-1 0:db.internal:5432 -- psql -h localhost -p \
             \"{port}\"",
        )
}

/// A parser of numbers. Its error is a phrase: the value must be what is `wanted`.
fn number<T>(range: RangeInclusive<T>, wanted: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be {wanted}"))
    }
}

/// The arguments after `--`.
fn trailing_command() -> Arg {
    Arg::new("command").value_name("COMMAND").value_parser(value_parser!(OsString)).num_args(1..).last(true)
}

fn run() -> Command {
    with_common(sub("run", "TARGET -- COMMAND [ARGUMENT]...", "Run a command and exit with its status."))
        .long_about(
            "Run a command on a Linux or macOS target and exit with its status, or with 255 if the plugin fails or a signal ends \
             the command, which is reported on stderr. Arguments \
             are passed unchanged; stdin is not passed on. With SSM Agent 3.1.1511.0 or later, stdout and stderr stay separate.",
        )
        .arg(target())
        .arg(
            trailing_command()
                .required(true)
                .help("Program and its arguments"),
        )
        .after_help(
            "Examples:\n  session-manager-plugin run web-1 -- uptime\n  session-manager-plugin run web-1 -- sh -c \
             'df -h | tail -1'",
        )
}

fn start_session() -> Command {
    let usage = "--target TARGET [--document-name NAME] [--parameters PARAMETERS]";
    with_common(sub("start-session", usage, "Start a session with any document, like aws ssm start-session."))
        .arg(
            Arg::new("target")
                .long("target")
                .value_name("TARGET")
                .required(true)
                .value_parser(not_empty)
                .help(TARGET_HELP),
        )
        .args(document_args())
        .after_help(
            "Example:\n  session-manager-plugin start-session --target i-0123456789abcdef0 \\\n    --document-name \
             AWS-StartPortForwardingSession --parameters portNumber=80,localPortNumber=8080",
        )
}

fn completions() -> Command {
    sub("completions", "SHELL", "Print a completion script for a shell.")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(["bash", "zsh", "fish", "powershell"])
                .help("Shell to print the script for"),
        )
        .after_help("Example:\n  session-manager-plugin completions bash >>~/.bash_completion")
}

fn doctor() -> Command {
    sub("doctor", "[OPTION]...", "Find out why sessions do not work.")
        .long_about("Find out why sessions do not work, and what to do. No session is started.")
        .args(doctor::args())
        .after_help(
            "Exit status: 0 if no check failed, 1 if any failed, 2 for invalid arguments.\n\nExamples:\n  \
             session-manager-plugin doctor\n  session-manager-plugin doctor --profile work --target \
             i-0123456789abcdef0",
        )
}

fn sub(name: &'static str, usage: &str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .override_usage(format!("{PROGRAM} {name} {usage}"))
        .disable_version_flag(true)
}

fn target() -> Arg {
    Arg::new("target").value_name("TARGET").required(true).value_parser(not_empty).help(TARGET_HELP)
}

fn document_args() -> [Arg; 2] {
    [
        Arg::new("document-name")
            .long("document-name")
            .value_name("NAME")
            .value_parser(not_empty)
            .help("Session document [default: the account's shell document]"),
        Arg::new("parameters")
            .long("parameters")
            .value_name("PARAMETERS")
            .value_parser(not_empty)
            .help("Parameters of the document, as NAME=VALUE,NAME=VALUE or JSON"),
    ]
}

fn with_common(command: Command) -> Command {
    command.args(common_args())
}

/// The options of all commands that start sessions.
pub(super) fn common_args() -> [Arg; 8] {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(not_empty).help(help)
    };
    [
        option("profile", "PROFILE", "AWS profile [default: AWS_PROFILE]"),
        option("region", "REGION", "AWS region [default: from the environment or the profile]"),
        option("endpoint-url", "URL", "Endpoint URL for calls to SSM"),
        option("reason", "REASON", "Reason to record in the session history"),
        Arg::new("wait")
            .long("wait")
            .value_name("SECONDS")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("300")
            .value_parser(number(1..=86_400_u64, "a number of seconds from 1 to 86400"))
            .help("Wait until the target's agent is connected to Systems Manager, for at most SECONDS [without SECONDS: 300]"),
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Report events on stderr, one JSON object per line"),
        Arg::new("quiet")
            .short('q')
            .long("quiet")
            .action(ArgAction::SetTrue)
            .help("Report only failures on stderr"),
        Arg::new("verbose")
            .short('v')
            .long("verbose")
            .action(ArgAction::Count)
            .help("Log each step on stderr; repeat for more detail"),
    ]
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the value is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// The program's name in usage lines.
pub(super) const PROGRAM: &str = "session-manager-plugin";
const TARGET_HELP: &str =
    "Instance id (i-…, mi-…), ecs:CLUSTER_TASK_RUNTIME, Name tag, computer name, or tag:KEY=VALUE";
