package aggregate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
)

// metrics are what an operator watches; names follow the Prometheus conventions.
type metrics struct {
	rows         *prometheus.CounterVec // by table
	flushSeconds *prometheus.HistogramVec
	sealed       prometheus.Counter
	retries      prometheus.Counter
	unreadable   *prometheus.CounterVec // by stream
	rejected     prometheus.Counter
	lost         prometheus.Gauge
	streamFill   *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "polyphony_aggregator_rows_total", Help: "Rows stored, repeats included."}, []string{"table"}),
		flushSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "polyphony_aggregator_flush_seconds", Help: "From a batch's messages to its rows.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}}, []string{"table"}),
		sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "polyphony_aggregator_node_hours_sealed_total", Help: "Node-hours recomputed from the facts."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "polyphony_aggregator_retries_total", Help: "Times ClickHouse had to be asked again."}),
		unreadable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "polyphony_aggregator_unreadable_messages_total", Help: "Messages on our streams that nobody of ours wrote."}, []string{"stream"}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "polyphony_aggregator_rejects_total", Help: "Messages, their lines and edits kept as rejects, repeats included."}),
		lost: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "polyphony_aggregator_losses", Help: "What acknowledged data were lost, in streams or in ClickHouse, and not replayed yet; see the log."}),
	}
	m.streamFill = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "polyphony_aggregator_stream_fill_ratio", Help: "How full a stream is: at 1 it refuses."}, []string{"stream"})
	r.MustRegister(m.rows, m.flushSeconds, m.sealed, m.retries, m.unreadable, m.rejected, m.lost, m.streamFill)
	return m
}

func (m *metrics) fill(f bus.Fill) { m.streamFill.WithLabelValues(f.Stream).Set(f.Ratio()) }

func (m *metrics) flushed(table string, rows int, took time.Duration) {
	m.rows.WithLabelValues(table).Add(float64(rows))
	m.flushSeconds.WithLabelValues(table).Observe(took.Seconds())
}
