//! Which calls are traced: the rules of the standard `OTEL_TRACES_SAMPLER`.

use opentelemetry::TraceId;

use super::variables::Variables;

/// Decides for a call from what its caller decided, and from a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a caller's decision stands.
    parent_based: bool,
    /// Of the 63-bit numbers, those below are sampled.
    below: u64,
}

impl Sampler {
    /// Reads `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
    pub fn from_env(env: &Variables<'_>) -> Self {
        const DEFAULT: &str = "parentbased_always_on";
        const KNOWN: [&str; 6] = [
            DEFAULT,
            "parentbased_always_off",
            "parentbased_traceidratio",
            "always_on",
            "always_off",
            "traceidratio",
        ];
        let name = env.one_of(&["OTEL_TRACES_SAMPLER"], &KNOWN).unwrap_or(DEFAULT);
        let root = name.strip_prefix("parentbased_");
        let ratio = match root.unwrap_or(name) {
            "always_off" => 0.0,
            "traceidratio" => ratio(env),
            _ => 1.0,
        };
        Self::new(root.is_some(), ratio)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a ratio of 2^63, as OpenTelemetry computes it"
    )]
    fn new(parent_based: bool, ratio: f64) -> Self {
        Self { parent_based, below: (ratio * (1u64 << 63) as f64) as u64 }
    }

    /// Decides for a call whose caller has this trace and sampled it or not.
    pub fn samples(&self, caller: Option<(TraceId, bool)>) -> bool {
        match caller {
            Some((_, sampled)) if self.parent_based => sampled,
            // By the trace's id, so that every service on its way decides the same.
            Some((trace, _)) => low_bits(trace) >> 1 < self.below,
            None => fastrand::u64(..) >> 1 < self.below,
        }
    }
}

fn ratio(env: &Variables<'_>) -> f64 {
    const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(arg) = env.text(NAME) else { return 1.0 };
    match arg.trim().parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            env.ignored(NAME, &arg, "a number from 0 to 1");
            1.0
        }
    }
}

fn low_bits(trace: TraceId) -> u64 {
    trace.to_bytes()[8..].iter().fold(0, |bits, byte| (bits << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::variables::testing::read;

    fn sampler(name: &str, arg: &str) -> (Sampler, Vec<String>) {
        read(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)], Sampler::from_env)
    }

    #[test]
    fn a_callers_decision_stands_only_where_the_sampler_says_so() {
        let low = TraceId::from(1u128);
        let high = TraceId::from(u128::from(u64::MAX));
        let based = sampler("parentbased_traceidratio", "0").0;
        assert!(based.samples(Some((high, true))));
        assert!(!based.samples(Some((low, false))));
        assert!(!based.samples(None));
        let by_id = sampler("traceidratio", "0.5").0;
        assert!(by_id.samples(Some((low, false))));
        assert!(!by_id.samples(Some((high, true))));
        assert!(sampler("always_on", "").0.samples(Some((high, false))));
        assert!(!sampler("always_off", "").0.samples(Some((low, true))));
    }

    #[test]
    fn without_a_caller_the_ratio_holds() {
        let quarter = sampler("parentbased_traceidratio", "0.25").0;
        let count = (0..10_000).filter(|_| quarter.samples(None)).count();
        assert!((2_000..3_000).contains(&count), "{count} of 10000");
    }

    #[test]
    fn what_cannot_be_used_is_ignored_with_a_warning() {
        for (name, arg, expected) in [
            ("jaeger_remote", "", Sampler::new(true, 1.0)),
            ("traceidratio", "2", Sampler::new(false, 1.0)),
            ("parentbased_traceidratio", "half", Sampler::new(true, 1.0)),
        ] {
            let (sampler, warnings) = sampler(name, arg);
            assert_eq!((sampler, warnings.len()), (expected, 1), "{name}: {warnings:?}");
        }
        for (name, arg) in [("", ""), ("PARENTBASED_always_on", ""), ("parentbased_traceidratio", "")] {
            assert_eq!(sampler(name, arg), (Sampler::new(true, 1.0), Vec::new()), "{name}");
        }
    }
}
