//! A database that is not written: told once when it has gone on for a while, and once when it is over. The outbox lies
//! in that database, so this alone is told from memory.

use std::time::Duration;

use super::notice::{Notice, Status};
use crate::config::NoticeKind;
use crate::db::WriterStatus;

/// Shorter ones are another program's lock, and over before anybody reads of them.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub struct Episode {
    /// Since when, seconds since 1970, once that was told.
    told_s: Option<i64>,
}

impl Episode {
    /// What is to be told now. `now` is of the clock that the status has its times from.
    pub fn look(&mut self, status: &WriterStatus, now: Duration) -> Option<Notice> {
        let now_s = seconds(now);
        let told =
            |status, began_s, summary| Notice::of_daemon(NoticeKind::Database, status, [began_s, now_s], summary);
        match (status.failing_since, self.told_s) {
            (Some(since), None) if status.behind_by(now) >= TOLD_AFTER => {
                self.told_s = Some(seconds(since));
                let why = status.last_error.as_deref().unwrap_or("the log says why");
                let summary = format!("usage is not being saved, recordings go on: {why}");
                Some(told(Status::Firing, seconds(since), summary))
            }
            (None, Some(began_s)) => {
                self.told_s = None;
                Some(told(Status::Resolved, began_s, "usage is saved again".to_owned()))
            }
            _ => None,
        }
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let mut episode = Episode::default();
        let failing = |since_s| WriterStatus {
            failing_since: Some(Duration::from_secs(since_s)),
            last_error: Some("no space left".to_owned()),
            ..WriterStatus::default()
        };
        let well = WriterStatus::default();
        let mut look = |status: &WriterStatus, now_s| {
            let notice = episode.look(status, Duration::from_secs(now_s))?;
            Some((notice.status, notice.began_s, notice.summary))
        };
        assert_eq!(look(&well, 100), None);
        assert_eq!(look(&failing(100), 104), None);
        assert_eq!(look(&well, 105), None, "too short to be told");
        let (status, began_s, summary) = look(&failing(200), 205).unwrap();
        assert_eq!((status, began_s), (Status::Firing, 200));
        assert!(summary.ends_with(": no space left"), "{summary}");
        assert_eq!(look(&failing(200), 900), None);
        let (status, began_s, _) = look(&well, 901).unwrap();
        assert_eq!((status, began_s), (Status::Resolved, 200));
        assert_eq!(look(&well, 902), None);
    }
}
