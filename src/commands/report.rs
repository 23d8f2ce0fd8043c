//! `doctor`: its report on stdout.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use tokio::runtime::Builder;

use super::failure::Failure;
use crate::doctor::{self, Check, Look, Options, Report};
use crate::settings::{Settings, Subject};
use crate::{aws, output, process};

/// Makes all checks and prints the report. The status is 0 when no check has failed, and 1 when one has.
pub(super) fn run(options: Options) -> ExitCode {
    let subject = Subject {
        profile: aws::profile_name(options.profile.clone()),
        region: options.region.clone(),
        target: options.target.clone(),
        ..Subject::default()
    };
    let loaded = Settings::load(&subject);
    output::set_panic_form(&loaded.settings);
    let runtime =
        process::check_descriptors().and_then(|()| Builder::new_current_thread().enable_all().build());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(error.to_string()).end("doctor", &loaded.settings),
    };
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
