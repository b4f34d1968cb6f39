//! The two text forms, and which one somebody wants: OpenMetrics for who names it, as Prometheus does, the older one for
//! everybody else.

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// A text form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Prometheus's own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Form {
    /// By an `Accept` header (RFC 9110), empty where there was none. An unknown version of OpenMetrics is not offered.
    pub fn of(accept: &str) -> Self {
        let (mut open_metrics, mut prometheus) = (0, 0);
        for wish in accept.split(',') {
            let mut parts = wish.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut is_known) = (1000, true);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => weight = per_mille(value),
                    Some(("version", value)) => is_known = ["0.0.1", "0.0.4", "1.0.0"].contains(&value),
                    _ => {}
                }
            }
            if kind.eq_ignore_ascii_case("application/openmetrics-text") && is_known {
                open_metrics = open_metrics.max(weight);
            } else if ["text/plain", "text/*", "*/*"]
                .iter()
                .any(|own| kind.eq_ignore_ascii_case(own))
            {
                prometheus = prometheus.max(weight);
            }
        }
        if open_metrics > 0 && open_metrics >= prometheus {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// As the header names it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The figures in this form.
    pub fn encode(self, registry: &Registry) -> String {
        let mut told = String::new();
        // A String takes all.
        let _ = match self {
            Self::Prometheus => prometheus_text::encode(&mut told, registry),
            Self::OpenMetrics => text::encode(&mut told, registry),
        };
        told
    }
}

/// A weight of an `Accept` header; what is none counts as 0.
fn per_mille(value: &str) -> u32 {
    let (whole, rest) = value.split_once('.').unwrap_or((value, ""));
    let thousandths = format!("{rest:0<3}");
    match (whole, thousandths.parse()) {
        ("0", Ok(weight)) if weight < 1000 => weight,
        ("1", Ok(0)) => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_open_metrics_gets_it_and_everybody_else_the_older_form() {
        let of_prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                             q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            of_prometheus,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=1.0.0",
        ] {
            assert_eq!(Form::of(accept), Form::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html, text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.2,text/plain;q=0.25",
            "application/openmetrics-text;q=nonsense",
        ] {
            assert_eq!(Form::of(accept), Form::Prometheus, "{accept}");
        }
    }

    #[test]
    fn weights_have_three_places() {
        for (text, weight) in [
            ("1", 1000),
            ("1.000", 1000),
            ("0.5", 500),
            ("0.05", 50),
            ("0.001", 1),
            ("0", 0),
        ] {
            assert_eq!(per_mille(text), weight, "{text}");
        }
        for text in ["", "2", "1.5", "-0.5", "0.5555", "x"] {
            assert_eq!(per_mille(text), 0, "{text}");
        }
    }
}
