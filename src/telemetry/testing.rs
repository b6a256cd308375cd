//! What tests of every module read metrics with.

use metrics_exporter_prometheus::PrometheusBuilder;

/// The metrics that `f` leaves behind, one line each, those at zero left out.
pub fn recorded(f: impl FnOnce()) -> Vec<String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, f);
    let text = recorder.handle().render();
    let lines =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !line.ends_with(" 0"));
    lines.map(str::to_owned).collect()
}
