//! A comparison of two load reports.

/// Whether larger values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetterDirection {
    Lower,
    Higher,
    /// A metric of the generator, not of the hub.
    Neither,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A time in milliseconds.
    Time,
    PerSecond,
    /// A count of the whole run.
    Count,
}

/// One metric of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricDifference {
    pub metric: String,
    pub kind: MetricKind,
    pub better: BetterDirection,
    pub a: f64,
    pub b: f64,
    /// (b - a) / a; `None` if a is 0.
    pub change: Option<f64>,
    /// The 95 % confidence interval of the change; `None` if there are too few intervals, or the metric is not random.
    pub interval: Option<(f64, f64)>,
    pub regression: bool,
    /// Why it cannot be decided whether the metric has a regression, and what to do.
    pub undecided: Option<&'static str>,
}

impl MetricDifference {
    /// Whether the difference is unlikely to be chance.
    pub fn is_significant(&self) -> bool {
        self.interval.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct LoadComparison {
    pub differences: Vec<MetricDifference>,
    /// Caveats for the reader.
    pub notes: Vec<String>,
}

impl LoadComparison {
    pub fn has_regression(&self) -> bool {
        self.differences.iter().any(|difference| difference.regression)
    }

    /// Whether it cannot be decided if there is a regression.
    pub fn is_undecided(&self) -> bool {
        !self.has_regression() && self.differences.iter().any(|difference| difference.undecided.is_some())
    }
}
