"""The scorecard: every case of tests/netns/cases, judged by k3swatch and by what people use today."""
