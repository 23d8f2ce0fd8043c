//! The runtime of a command, and the subject of its settings, which takes one.

use std::io;

use tokio::runtime::Builder;
pub(super) use tokio::runtime::Runtime;

use crate::settings::Subject;
use crate::{aws, process};

/// The runtime. It panics where there are no descriptors for its signals, so these are looked for first.
pub(super) fn runtime() -> io::Result<Runtime> {
    process::check_descriptors()?;
    Builder::new_current_thread().enable_all().build()
}

/// The session for which sections of the settings file are matched: with the profile and the region in effect.
pub(super) async fn subject(
    profile: Option<String>,
    region: Option<String>,
    target: Option<String>,
) -> Subject {
    let profile = aws::profile_name(profile);
    let region = match aws::named_region(region) {
        Some(region) => Some(region),
        None => {
            let files = aws::profiles(profile.as_deref()).await.ok();
            aws::region_in_effect(None, files.as_ref())
        }
    };
    Subject { profile, region, target, ..Subject::default() }
}
