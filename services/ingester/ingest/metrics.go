package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator watches; names follow the Prometheus conventions.
type metrics struct {
	accepted      prometheus.Counter
	rejected      *prometheus.CounterVec // by code
	refused       *prometheus.CounterVec // by status
	commitSeconds prometheus.Histogram
	rulesRefused  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "polyphony_ingester_events_accepted_total", Help: "Events stored, duplicates included."}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "polyphony_ingester_events_rejected_total", Help: "Events kept as rejects."}, []string{"code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "polyphony_ingester_requests_refused_total", Help: "Requests answered with anything but 202."}, []string{"status"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "polyphony_ingester_commit_seconds", Help: "From a group's first publish to its last acknowledgement.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}}),
		rulesRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "polyphony_ingester_rules_refused_total", Help: "Broken states of the nodes directory."}),
	}
	r.MustRegister(m.accepted, m.rejected, m.refused, m.commitSeconds, m.rulesRefused)
	return m
}

// count adds a request that was stored.
func (m *metrics) count(j *judge) {
	m.accepted.Add(float64(j.accepted))
	for _, b := range j.rejects.list {
		m.rejected.WithLabelValues(b.name).Add(float64(b.events))
	}
}
