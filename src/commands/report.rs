//! `doctor`: its report on stdout.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::failure::Failure;
use super::runtime::{runtime, subject};
use crate::doctor::{self, Check, Look, Options, Report};
use crate::output;
use crate::settings::{Settings, Subject};

/// Makes all checks and prints the report. The status is 0 when no check has failed, and 1 when one has.
pub(super) fn run(options: Options) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(error.to_string())
                .end("doctor", &Settings::load(&Subject::default()).settings);
        }
    };
    let Options { profile, region, target, .. } = options.clone();
    let loaded = Settings::load(&runtime.block_on(subject(profile, region, target)));
    output::set_panic_form(&loaded.settings);
    let look = look();
    if !options.json {
        print(&Report::title());
    }
    let show = |check: &Check| {
        if !options.json {
            print(&check.to_text(look));
        }
    };
    let report = runtime.block_on(doctor::examine(&options, &loaded, show));
    // A thread that still waits for a resolver must not delay the end.
    runtime.shutdown_background();
    print(&if options.json { report.to_json() } else { report.summary() });
    ExitCode::from(u8::from(report.has_failed()))
}

/// Prints on stdout. A closed one is ignored.
pub(super) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Marks at a terminal, and colours unless `NO_COLOR` (no-color.org) is set.
fn look() -> Look {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = cfg!(unix) && std::env::var("TERM").is_ok_and(|term| term == "dumb");
    match (io::stdout().is_terminal(), is_set("NO_COLOR") || is_dumb) {
        (false, _) => Look::Plain,
        (true, true) => Look::Marks,
        (true, false) => Look::Colors,
    }
}
