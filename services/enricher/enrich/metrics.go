package enrich

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
)

// metrics are what an operator watches; names follow the Prometheus conventions.
type metrics struct {
	events, unmatched, mentions, rejected, frames prometheus.Counter
	cycleSeconds                                  prometheus.Histogram
	streamFill                                    *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	m := &metrics{
		events:    counter("polyphony_enricher_events_total", "Events read, repeats included."),
		unmatched: counter("polyphony_enricher_events_unmatched_total", "Events that concern no node and were dropped."),
		mentions:  counter("polyphony_enricher_mentions_total", "Mentions published."),
		rejected:  counter("polyphony_enricher_rejects_total", "Frames and events kept as rejects."),
		frames:    counter("polyphony_enricher_frames_total", "Raw frames read."),
		cycleSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "polyphony_enricher_cycle_seconds", Help: "From a cycle's frames to its last acknowledgement.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}}),
	}
	m.streamFill = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "polyphony_enricher_stream_fill_ratio", Help: "How full a stream is: at 1 it refuses."}, []string{"stream"})
	r.MustRegister(m.cycleSeconds, m.streamFill)
	return m
}

func (m *metrics) fill(f bus.Fill) { m.streamFill.WithLabelValues(f.Stream).Set(f.Ratio()) }

func (m *metrics) cycle(o *outbox, frames int, took time.Duration) {
	m.frames.Add(float64(frames))
	m.events.Add(float64(o.events))
	m.unmatched.Add(float64(o.unmatched))
	m.mentions.Add(float64(o.mentions))
	m.cycleSeconds.Observe(took.Seconds())
}
