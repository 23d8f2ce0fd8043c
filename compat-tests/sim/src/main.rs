//! `ssm-sim` as a program.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use ssm_sim::agent::{AgentOptions, Broken, Generation};
use ssm_sim::{
    Config, Credentials, Cut, DEFAULT_TARGET, Faults, Instance, KmsOptions, Replay, ResumePolicy,
    SERVICE_MESSAGE_LIMIT, Sim,
};
use tokio::io::AsyncReadExt;
use tracing_subscriber::EnvFilter;

/// A local AWS for session-manager-plugin: API endpoints, message gateway and an agent, on one loopback port.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// TCP port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Simulated agent generation.
    #[arg(long, value_enum, default_value = "3.3")]
    agent: Agent,
    /// An agent without its pause of 1 ms after each message.
    #[arg(long)]
    unpaced: bool,
    /// The most bytes in one of the agent's messages.
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// The program for shells.
    #[arg(long)]
    shell: Option<String>,
    /// Data messages a second that a client may send; or "off".
    #[arg(long, value_name = "N|off", default_value_t = SERVICE_MESSAGE_LIMIT.to_string())]
    message_limit: String,
    /// Instance ids that are connected.
    #[arg(long = "target", value_name = "ID", default_value = DEFAULT_TARGET)]
    targets: Vec<String>,
    /// An instance with a name, tags and a state: ID[,name=..][,computer=..][,platform=Linux|Windows|MacOS]
    /// [,state=Online|ConnectionLost|Inactive][,tag:KEY=VALUE].
    #[arg(long = "instance", value_name = "INSTANCE")]
    instances: Vec<Instance>,
    /// No instance is connected before this.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    connected_after: u64,
    /// An action that IAM denies, such as ssm:StartSession.
    #[arg(long = "deny", value_name = "ACTION")]
    denied: Vec<String>,
    /// Refuse all credentials as expired, except for sts:GetCallerIdentity.
    #[arg(long)]
    expired_token: bool,
    /// Keep the keys that SendSSHPublicKey pushes in this file for 60 s, for an SSH server's AuthorizedKeysFile.
    #[arg(long, value_name = "FILE")]
    authorized_keys: Option<PathBuf>,
    /// Cut each websocket this long after its open.
    #[arg(long, value_name = "MS")]
    cut_every: Option<u64>,
    /// Cut by a TCP reset instead of a close frame.
    #[arg(long)]
    reset: bool,
    /// Probability that a frame from the client is lost.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss_up: f64,
    /// Probability that a frame to the client is lost.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss_down: f64,
    /// Probability that a frame comes twice.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    duplicate: f64,
    /// Probability that a frame is overtaken by later ones.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    reorder: f64,
    /// One-way delay.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Added to the delay, up to this.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter: u64,
    /// Bytes a second each way.
    #[arg(long, value_name = "BYTES")]
    bandwidth: Option<u64>,
    /// Seed of the link's chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Encrypt shells with this key of the simulated KMS.
    #[arg(long, value_name = "KEY")]
    kms_key: Option<String>,
    /// With --kms-key: send a random challenge, as agents since 3.3 do.
    #[arg(long)]
    challenge: bool,
    /// Only these credentials are accepted, and signatures are verified.
    #[arg(long, value_name = "ACCESS_KEY:SECRET_KEY", value_parser = credentials)]
    credentials: Option<Credentials>,
    /// Accept the first stream URL after ResumeSession has given another one: older official plugins keep it.
    #[arg(long)]
    accept_old_urls: bool,
    /// Response of ResumeSession.
    #[arg(long, value_enum, default_value = "allow")]
    resume: Resume,
    /// A rule that the agent does not keep, for who wants to see whether that is found.
    #[arg(long, value_enum, value_name = "RULE")]
    broken: Option<BrokenRule>,
    /// Serve https and wss; the authority's certificate is written to this file.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// End when the simulator has been unused for this long.
    #[arg(long, value_name = "SECONDS")]
    idle_exit: Option<u64>,
    /// End when stdin is closed.
    #[arg(long)]
    exit_with_stdin: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Play the agent's side of a recorded session: a file of SSM_PLUGIN_WIRE_LOG, or of compat-tests/vectors.
    Replay {
        /// The recording.
        file: PathBuf,
        /// TCP port on 127.0.0.1; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Time to wait for each message from the client, in seconds.
        #[arg(long, value_name = "MS", default_value_t = 3000)]
        patience: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Agent {
    #[value(name = "3.3")]
    V3_3,
    #[value(name = "3.0")]
    V3_0,
    #[value(name = "2.3")]
    V2_3,
}

#[derive(Clone, Copy, ValueEnum)]
enum Resume {
    Allow,
    Deny,
    TimedOut,
    Fail,
}

#[derive(Clone, Copy, ValueEnum)]
enum BrokenRule {
    ExitCode,
    LostOutput,
    NoAcknowledgement,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("SSM_SIM_LOG").unwrap_or_else(|_| EnvFilter::new("ssm_sim=info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    // Before anybody can know that we run.
    let mut told_to_end = {
        let _runtime = runtime.enter();
        ToldToEnd::install().context("signals")?
    };
    if let Some(Command::Replay { file, port, patience }) = &args.command {
        let replay = Replay::start(file, *port, Duration::from_millis(*patience))?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "LISTENING {}", replay.endpoint())
            .and_then(|()| stdout.flush())
            .context("stdout")?;
        runtime.block_on(told_to_end.wait());
        return Ok(());
    }
    let sim = Sim::start(config(&args)?)?;
    if let Some(path) = &args.tls_ca {
        std::fs::write(path, sim.ca_pem().unwrap_or_default())
            .with_context(|| format!("write {}", path.display()))?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "LISTENING {}", sim.endpoint()).and_then(|()| stdout.flush()).context("stdout")?;
    help(&args, &sim);
    runtime.block_on(until_end(&args, &sim, told_to_end));
    drop(sim);
    // A read of stdin may still be waiting.
    runtime.shutdown_background();
    Ok(())
}

fn config(args: &Args) -> anyhow::Result<Config> {
    let message_limit = match args.message_limit.as_str() {
        "off" => None,
        number => Some(number.parse().with_context(|| format!("message limit {number:?}"))?),
    };
    let ms = Duration::from_millis;
    Ok(Config {
        port: args.port,
        tls: args.tls_ca.is_some(),
        agent: AgentOptions {
            generation: match args.agent {
                Agent::V3_3 => Generation::V3_3,
                Agent::V3_0 => Generation::V3_0,
                Agent::V2_3 => Generation::V2_3,
            },
            pacing: !args.unpaced,
            payload: args.payload,
            shell: args.shell.clone(),
            broken: args.broken.map(|rule| match rule {
                BrokenRule::ExitCode => Broken::ExitCode,
                BrokenRule::LostOutput => Broken::LostOutput,
                BrokenRule::NoAcknowledgement => Broken::NoAcknowledgement,
            }),
            ..AgentOptions::default()
        },
        message_limit,
        faults: Faults {
            cut_every: args.cut_every.map(ms),
            cut: if args.reset { Cut::Reset } else { Cut::Close },
            loss_up: args.loss_up,
            loss_down: args.loss_down,
            duplicate: args.duplicate,
            reorder: args.reorder,
            delay: ms(args.delay),
            jitter: ms(args.jitter),
            bandwidth: args.bandwidth,
            seed: args.seed,
            ..Faults::default()
        },
        targets: args.targets.clone(),
        instances: args.instances.clone(),
        connected_after: Duration::from_secs(args.connected_after),
        denied: args.denied.clone(),
        expired_token: args.expired_token,
        authorized_keys: args.authorized_keys.clone(),
        kms: KmsOptions {
            encrypt_shell: args.kms_key.clone(),
            challenge: args.challenge,
            ..KmsOptions::default()
        },
        resume: match args.resume {
            Resume::Allow => ResumePolicy::Allow,
            Resume::Deny => ResumePolicy::Deny,
            Resume::TimedOut => ResumePolicy::TimedOut,
            Resume::Fail => ResumePolicy::Fail,
        },
        credentials: args.credentials.clone(),
        refuse_old_urls: !args.accept_old_urls,
        ..Config::default()
    })
}

fn credentials(text: &str) -> Result<Credentials, String> {
    let (access_key, secret_key) = text.split_once(':').ok_or("expected ACCESS_KEY:SECRET_KEY")?;
    Ok(Credentials { access_key: access_key.to_owned(), secret_key: secret_key.to_owned() })
}

/// Prints how to point the AWS CLI here. Not on stdout, of which only the first line means something.
fn help(args: &Args, sim: &Sim) {
    let target = args.targets.first().map_or(DEFAULT_TARGET, String::as_str);
    let bundle = args.tls_ca.as_ref().map(|p| format!("export AWS_CA_BUNDLE={}\n", p.display()));
    let endpoint = sim.endpoint();
    let (access_key, secret_key) =
        args.credentials.as_ref().map_or(("sim", "sim"), |c| (c.access_key.as_str(), c.secret_key.as_str()));
    // Not AWS_ENDPOINT_URL, which the AWS CLI of Debian 12 does not know.
    let text = format!(
        "export AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={secret_key} AWS_DEFAULT_REGION=us-east-1\n\
         {}aws --endpoint-url {endpoint} ssm start-session --target {target}\n\
         aws --endpoint-url {endpoint} ecs execute-command --task 0123456789abcdef --interactive --command sh\n\
         curl {endpoint}/sim/sessions\n",
        bundle.unwrap_or_default()
    );
    let _ = std::io::stderr().write_all(text.as_bytes());
}

async fn until_end(args: &Args, sim: &Sim, mut told_to_end: ToldToEnd) {
    let idle = async {
        let Some(limit) = args.idle_exit.map(Duration::from_secs) else {
            return std::future::pending().await;
        };
        while sim.idle() < limit {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let stdin = async {
        if !args.exit_with_stdin {
            return std::future::pending().await;
        }
        let mut input = tokio::io::stdin();
        let mut buffer = [0; 1024];
        while input.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    tokio::select! {
        () = told_to_end.wait() => {}
        () = idle => {}
        () = stdin => {}
    }
}

/// SIGINT and SIGTERM; Ctrl-C and Ctrl-Break on Windows.
struct ToldToEnd {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
    #[cfg(windows)]
    signals: (tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlBreak),
}

impl ToldToEnd {
    fn install() -> std::io::Result<ToldToEnd> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
            Ok(ToldToEnd { signals })
        }
        #[cfg(windows)]
        {
            use tokio::signal::windows::{ctrl_break, ctrl_c};
            Ok(ToldToEnd { signals: (ctrl_c()?, ctrl_break()?) })
        }
    }

    async fn wait(&mut self) {
        #[cfg(unix)]
        let [first, second] = &mut self.signals;
        #[cfg(windows)]
        let (first, second) = &mut self.signals;
        tokio::select! {
            _ = first.recv() => {}
            _ = second.recv() => {}
        }
    }
}

/// Between two looks at the idle time.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
