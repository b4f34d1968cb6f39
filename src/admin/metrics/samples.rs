//! Figures on their way into the text: taken once, told in the order in which they were taken, and gone.

use std::fmt::{Debug, Error};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{BUCKETS, Snapshot, bound_ns};

/// Labels of one figure.
pub type Labels = Vec<(&'static str, Arc<str>)>;

/// One label.
pub fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.into())]
}

/// What goes up and down.
#[derive(Debug)]
pub struct Gauges<V>(pub Vec<(Labels, V)>);

impl<V> Gauges<V> {
    /// Without labels.
    pub fn one(value: V) -> Self {
        Self(vec![(Labels::new(), value)])
    }
}

impl<V: EncodeGaugeValue + Debug> EncodeMetric for Gauges<V> {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), Error> {
        for (labels, value) in &self.0 {
            encoder.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What only grows, until the daemon ends.
#[derive(Debug)]
pub struct Counters<V>(pub Vec<(Labels, V)>);

impl<V> Counters<V> {
    /// Without labels.
    pub fn one(value: V) -> Self {
        Self(vec![(Labels::new(), value)])
    }
}

impl<V: EncodeCounterValue + Debug> EncodeMetric for Counters<V> {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), Error> {
        for (labels, value) in &self.0 {
            let mut one = encoder.encode_family(labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Times, in seconds.
#[derive(Debug)]
pub struct Histograms(pub Vec<(Labels, Snapshot)>);

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), Error> {
        for (labels, told) in &self.0 {
            let bound_s = |bucket| match bucket {
                BUCKETS => f64::INFINITY,
                bucket => seconds(bound_ns(bucket)),
            };
            let buckets: Vec<(f64, u64)> = (0..=BUCKETS).map(bound_s).zip(told.counts).collect();
            let mut one = encoder.encode_family(labels)?;
            one.encode_histogram::<NoLabelSet>(seconds(told.sum_ns), told.count(), &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// What there is one of, told in labels.
#[derive(Debug)]
pub struct Fact(pub Labels);

impl EncodeMetric for Fact {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), Error> {
        encoder.encode_info(&self.0)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Info
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time beyond 104 days is told to the microsecond"
)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::form::Form;
    use super::*;
    use crate::metrics::Histogram;
    use prometheus_client::registry::{Registry, Unit};

    #[test]
    fn a_histogram_is_told_in_seconds_and_cumulated() {
        let histogram = Histogram::default();
        for took_ns in [1000, 1001, 2000, 20_000_000_000] {
            histogram.note(took_ns);
        }
        let told = Histograms(vec![(label("operation", "read"), histogram.snapshot())]);
        let mut registry = Registry::default();
        registry.register_with_unit("took", "Help", Unit::Seconds, told);
        let text = Form::Prometheus.encode(&registry);
        for line in [
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{operation=\"read\",le=\"1e-06\"} 1",
            "took_seconds_bucket{operation=\"read\",le=\"2e-06\"} 3",
            "took_seconds_bucket{operation=\"read\",le=\"0.001024\"} 3",
            "took_seconds_bucket{operation=\"read\",le=\"16.777216\"} 3",
            "took_seconds_bucket{operation=\"read\",le=\"+Inf\"} 4",
            "took_seconds_sum{operation=\"read\"} 20.000004001",
            "took_seconds_count{operation=\"read\"} 4",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("_bucket").count(), BUCKETS + 1);
    }

    #[test]
    fn names_of_tenants_break_no_line() {
        let mut registry = Registry::default();
        let path = label("path", "/a\"b\\c\nd");
        registry.register("used", "Help", Gauges(vec![(path, 1_u64)]));
        for form in [Form::Prometheus, Form::OpenMetrics] {
            let text = form.encode(&registry);
            assert!(text.contains("used{path=\"/a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        }
    }
}
