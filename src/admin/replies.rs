//! Answers that were given under an idempotency key, so that a request that is sent again counts once.
//!
//! They are kept in memory alone: a restart forgets them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Serialize;

use super::problem::Problem;

/// Answers that are kept at most.
const KEPT_MAX: usize = 10_000;
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// Longest key.
const KEY_BYTES_MAX: usize = 512;

/// A good answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply(String);

impl Reply {
    pub fn of<T: Serialize>(told: &T) -> Self {
        Self(serde_json::to_string(told).unwrap_or_default())
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

struct Kept {
    body: String,
    reply: Reply,
    at: Duration,
}

/// See the module.
#[derive(Default)]
pub struct Replies(Mutex<Table>);

#[derive(Default)]
struct Table {
    kept: HashMap<String, Kept>,
    /// Keys, the oldest first.
    order: VecDeque<String>,
}

impl Replies {
    /// The answer of the first request with this key, which `answer` gives. A refused one is not kept: it may be tried
    /// again.
    ///
    /// # Errors
    /// Those of `answer`; 422 when the key came with another body before; 400 for a key that is too long.
    pub fn once(
        &self,
        key: &str,
        body: &str,
        now: Duration,
        answer: impl FnOnce() -> Result<Reply, Problem>,
    ) -> Result<Reply, Problem> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Problem::bad(format!(
                "Idempotency-Key: longer than {KEY_BYTES_MAX} bytes"
            )));
        }
        let mut table = self.0.lock();
        table.forget_old(now);
        if let Some(known) = table.kept.get(key) {
            if known.body == body {
                return Ok(known.reply.clone());
            }
            let detail = "this Idempotency-Key came with another request before; take a new one for each";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        let reply = answer()?;
        let kept = Kept {
            body: body.to_owned(),
            reply: reply.clone(),
            at: now,
        };
        table.kept.insert(key.to_owned(), kept);
        table.order.push_back(key.to_owned());
        Ok(reply)
    }
}

impl Table {
    fn forget_old(&mut self, now: Duration) {
        while let Some(oldest) = self.order.front() {
            let is_old = self
                .kept
                .get(oldest)
                .is_none_or(|kept| now.saturating_sub(kept.at) > KEPT_FOR);
            if !is_old && self.order.len() < KEPT_MAX {
                return;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.kept.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_is_answered_once_until_a_day_has_passed() {
        let replies = Replies::default();
        let mut count = 0;
        let mut ask = |key: &str, body: &str, at_h: u64| {
            let answer = || {
                count += 1;
                Ok(Reply(count.to_string()))
            };
            replies
                .once(key, body, Duration::from_hours(at_h), answer)
                .map(|reply| reply.0)
        };
        assert_eq!(ask("a", "x", 0).unwrap(), "1");
        assert_eq!(ask("a", "x", 24).unwrap(), "1");
        assert_eq!(ask("b", "x", 24).unwrap(), "2");
        assert!(ask("a", "y", 24).is_err());
        assert_eq!(ask("a", "x", 25).unwrap(), "3");
        for number in 0..KEPT_MAX {
            ask(&format!("k{number}"), "x", 25).unwrap();
        }
        assert_eq!(replies.0.lock().kept.len(), KEPT_MAX);
    }

    #[test]
    fn a_refusal_is_not_kept() {
        let replies = Replies::default();
        let now = Duration::ZERO;
        assert!(replies.once("a", "x", now, || Err(Problem::bad("no"))).is_err());
        assert_eq!(
            replies.once("a", "x", now, || Ok(Reply("1".into()))).unwrap(),
            Reply("1".into())
        );
    }
}
