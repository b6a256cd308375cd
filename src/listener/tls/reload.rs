//! Reading the files of TLS again when they change, also behind the symbolic links that
//! Kubernetes swaps.
//!
//! The files are polled: watches of the file system miss a swap of links and changes on
//! network volumes, and to read a few kilobytes every few seconds costs nothing.

use std::time::SystemTime;

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{
    Live, Tls,
    files::{Fingerprint, ReadFiles},
};

/// What is to happen because of what the files hold now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Unchanged,
    Live,
    /// It may be half written: the next look decides.
    Suspect,
    Refuse,
    /// It was refused before.
    StillRefused,
}

/// What earlier looks at the files have found.
#[derive(Debug, Default)]
struct History {
    suspected: bool,
    /// Why the files were refused that are there now.
    refused: Option<String>,
}

impl History {
    /// Judges a look: `Ok(false)` are the files that are live.
    fn judge(&mut self, found: &Result<bool, String>) -> Verdict {
        let why = match found {
            Ok(is_new) => {
                *self = Self::default();
                return if *is_new { Verdict::Live } else { Verdict::Unchanged };
            }
            Err(why) => why,
        };
        if !std::mem::replace(&mut self.suspected, true) {
            return Verdict::Suspect;
        }
        if self.refused.as_ref() == Some(why) {
            return Verdict::StillRefused;
        }
        self.refused = Some(why.clone());
        Verdict::Refuse
    }
}

impl Tls {
    /// Looks at the files for ever. What is live stays until a whole new set is good.
    pub async fn keep_reloading(self) {
        let mut interval = interval(self.reload_interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut history = History::default();
        loop {
            interval.tick().await;
            let files = self.files.clone();
            // It blocks for as long as a network volume does.
            let Ok(read) = spawn_blocking(move || files.read()).await else { continue };
            self.look(read, &mut history);
        }
    }

    fn look(&self, read: Result<ReadFiles, String>, history: &mut History) {
        let mut checked = None;
        let found = read.and_then(|files| {
            let fingerprint: Fingerprint = files.fingerprint();
            if fingerprint == self.fingerprint() {
                return Ok(false);
            }
            let good = self.files.check(&files, SystemTime::now())?;
            checked = Some((good, fingerprint));
            Ok(true)
        });
        let verdict = history.judge(&found);
        match (verdict, found, checked) {
            (Verdict::Live, _, Some((good, fingerprint))) => {
                self.replace(Live { config: good.config, fingerprint });
                self.metrics.reloaded(good.validity);
                let left = good.validity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
                tracing::info!(
                    expires_in_hours = left.as_secs() / 3_600,
                    "the TLS files have changed and are live"
                );
            }
            (Verdict::Refuse, Err(error), _) => {
                self.metrics.refuse();
                tracing::warn!(%error, "the TLS files have changed and are refused; the ones before stay live");
            }
            (Verdict::Unchanged, ..) => self.metrics.unchanged(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(why: &str) -> Result<bool, String> {
        Err(why.into())
    }

    #[test]
    fn a_set_is_refused_once_and_only_when_a_second_look_finds_none_that_is_good() {
        let mut history = History::default();
        let mut judge = |found| history.judge(&found);
        assert_eq!(judge(Ok(false)), Verdict::Unchanged);
        assert_eq!(judge(bad("half")), Verdict::Suspect);
        assert_eq!(judge(Ok(true)), Verdict::Live, "it was only half written");
        assert_eq!(judge(bad("a")), Verdict::Suspect);
        assert_eq!(judge(bad("a")), Verdict::Refuse);
        assert_eq!(judge(bad("a")), Verdict::StillRefused);
        assert_eq!(judge(bad("b")), Verdict::Refuse, "another fault is another line");
        assert_eq!(judge(Ok(false)), Verdict::Unchanged, "the old files are back");
        assert_eq!(judge(bad("b")), Verdict::Suspect);
    }
}
