//! Histograms whose samples are sorted into buckets as they come.
//!
//! The exporter keeps every sample, with the time, until a scrape sorts them: a
//! clock reading, 16 bytes and later work for each, four times a call, and memory
//! that grows with the load. Here a sample is two additions. Counters and gauges
//! stay the exporter's.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::catalog;

/// Seconds: fine where this service answers, then as OpenTelemetry advises for
/// calls.
const DURATION_BUCKETS_SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];

/// How many of something went together.
const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Messages, in bytes: most are small, and the largest is a page of users.
const BYTE_BUCKETS: &[f64] = &[64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// The upper bounds of a metric's buckets, by the unit that its name ends with.
fn bounds(name: &str) -> &'static [f64] {
    match name.rsplit('_').next() {
        Some("seconds") => DURATION_BUCKETS_SECONDS,
        Some("bytes") => BYTE_BUCKETS,
        _ => SIZE_BUCKETS,
    }
}

/// One histogram: a bucket for each bound, and one above the last.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// The bits of a float.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0.0_f64.to_bits()) }
    }

    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let mut count = 0;
        let (comma, braced) =
            if labels.is_empty() { ("", String::new()) } else { (",", format!("{{{labels}}}")) };
        for (index, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = self.bounds.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let sum = f64::from_bits(self.sum.load(Relaxed));
        let _ = writeln!(text, "{name}_sum{braced} {sum}\n{name}_count{braced} {count}");
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        // Most are in the first buckets, so nothing is gained by halving.
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

/// The histograms of one metric, by their labels as they are shown.
type Series = BTreeMap<String, Arc<Buckets>>;

/// Every histogram, by its name. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Histograms(Arc<Mutex<BTreeMap<String, Series>>>);

impl Histograms {
    /// The histogram of this name and these labels, made where there is none.
    fn of(&self, key: &Key) -> Arc<Buckets> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value()))).collect();
        let mut all = self.all();
        let series = all.entry(key.name().to_owned()).or_default();
        let buckets = || Arc::new(Buckets::new(bounds(key.name())));
        series.entry(labels.join(",")).or_insert_with(buckets).clone()
    }

    /// Appends all of them in Prometheus' text format.
    pub fn render(&self, text: &mut String) {
        for (name, series) in self.all().iter() {
            if let Some(metric) = catalog::find(name) {
                let _ = writeln!(text, "# HELP {name} {}", metric.help);
            }
            let _ = writeln!(text, "# TYPE {name} histogram");
            for (labels, buckets) in series {
                buckets.render(name, labels, text);
            }
            text.push('\n');
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Series>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A recorder whose histograms are those of this module.
pub struct WithHistograms<R> {
    pub others: R,
    pub histograms: Histograms,
}

impl<R: Recorder> Recorder for WithHistograms<R> {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.others.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.others.describe_gauge(name, unit, help);
    }

    /// The catalog describes them.
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.others.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.others.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.of(key))
    }
}

#[cfg(test)]
mod tests {
    use metrics::{NoopRecorder, histogram};

    use super::*;

    fn rendered(record: impl FnOnce()) -> String {
        let recorder = WithHistograms { others: NoopRecorder, histograms: Histograms::default() };
        metrics::with_local_recorder(&recorder, record);
        let mut text = String::new();
        recorder.histograms.render(&mut text);
        text
    }

    #[test]
    fn buckets_hold_what_is_not_above_their_bound() {
        let text = rendered(|| {
            let sizes = histogram!("user_service_store_batch_size");
            for size in [1.0, 2.0, 3.0, 4.0, 4.5, 1_000.0] {
                sizes.record(size);
            }
        });
        for line in [
            "# TYPE user_service_store_batch_size histogram",
            "user_service_store_batch_size_bucket{le=\"1\"} 1",
            "user_service_store_batch_size_bucket{le=\"2\"} 2",
            "user_service_store_batch_size_bucket{le=\"4\"} 4",
            "user_service_store_batch_size_bucket{le=\"8\"} 5",
            "user_service_store_batch_size_bucket{le=\"256\"} 5",
            "user_service_store_batch_size_bucket{le=\"+Inf\"} 6",
            "user_service_store_batch_size_sum 1014.5",
            "user_service_store_batch_size_count 6",
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "{line} in {text}");
        }
    }

    #[test]
    fn one_name_and_one_set_of_labels_are_one_histogram() {
        let text = rendered(|| {
            for operation in ["get", "get", "a \"quoted\\\" one"] {
                histogram!("user_service_store_operation_duration_seconds", "operation" => operation)
                    .record(0.003);
            }
        });
        let count = "user_service_store_operation_duration_seconds_count";
        assert!(text.contains(&format!("{count}{{operation=\"get\"}} 2\n")), "{text}");
        assert!(text.contains(&format!("{count}{{operation=\"a \\\"quoted\\\\\\\" one\"}} 1\n")), "{text}");
        assert!(text.contains("_bucket{operation=\"get\",le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("_bucket{operation=\"get\",le=\"0.005\"} 2\n"), "{text}");
        assert_eq!(text.matches("# HELP").count(), 1, "{text}");
    }
}
