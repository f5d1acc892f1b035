//! Counters and latency histograms that other modules embed.
