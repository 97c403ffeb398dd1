package embedded

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"text/template"
)

func configFile(dir string) string { return filepath.Join(dir, "config.xml") }

// writeConfig writes the two files that the engine reads at its start. token becomes the name that the engine shows to
// clients, by which the parent knows its own child.
func writeConfig(dir, token, host string, tcp, http int) error {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("creating %s: %w", data, cause(err))
	}
	values := map[string]string{
		"Dir": escape(dir), "Data": escape(data), "Token": token, "Host": host,
		"TCP": strconv.Itoa(tcp), "HTTP": strconv.Itoa(http),
	}
	for file, text := range map[string]*template.Template{configFile(dir): configXML, filepath.Join(dir, "users.xml"): usersXML} {
		var b bytes.Buffer
		if err := text.Execute(&b, values); err != nil {
			return fmt.Errorf("BUG: %s: %w", file, err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", file, cause(err))
		}
	}
	return nil
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a bytes.Buffer takes everything
	return b.String()
}

// configXML is the server's side: one data directory, two ports, and sizes for a laptop that also does other things.
// A system log table exists only where the file has an entry for it, and there is none.
var configXML = template.Must(template.New("config").Parse(`<clickhouse>
    <!-- Written at every start: changes are lost. -->
    <display_name>{{.Token}}</display_name>
    <path>{{.Data}}/</path>
    <tmp_path>{{.Data}}/tmp/</tmp_path>
    <user_files_path>{{.Data}}/user_files/</user_files_path>
    <format_schema_path>{{.Data}}/format_schemas/</format_schema_path>
    <listen_host>{{.Host}}</listen_host>
    <tcp_port>{{.TCP}}</tcp_port>
    <http_port>{{.HTTP}}</http_port>
    <logger>
        <level>warning</level>
        <log>{{.Dir}}/engine.log</log>
        <size>10M</size>
        <count>1</count>
        <console>0</console>
    </logger>
    <users_config>{{.Dir}}/users.xml</users_config>
    <user_directories><users_xml><path>{{.Dir}}/users.xml</path></users_xml></user_directories>
    <timezone>UTC</timezone>
    <shutdown_wait_unfinished>1</shutdown_wait_unfinished>

    <!-- Memory: at most 4 GiB or half the machine, and caches that fit into it. -->
    <max_server_memory_usage>4294967296</max_server_memory_usage>
    <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
    <mark_cache_size>134217728</mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <index_mark_cache_size>33554432</index_mark_cache_size>
    <compiled_expression_cache_size>33554432</compiled_expression_cache_size>
    <max_connections>256</max_connections>

    <!-- Threads: merging shares a few cores with everything else. -->
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_schedule_pool_size>4</background_schedule_pool_size>
    <background_common_pool_size>2</background_common_pool_size>
    <background_fetches_pool_size>1</background_fetches_pool_size>
    <background_move_pool_size>1</background_move_pool_size>
    <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
    <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
    <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
    <merge_tree>
        <!-- These must not exceed the four merges that the pool can hold. -->
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    </merge_tree>

    <!-- Idle: what would wake up every second to observe an engine that nobody observes. -->
    <asynchronous_metrics_update_period_s>60</asynchronous_metrics_update_period_s>
    <asynchronous_heavy_metrics_update_period_s>3600</asynchronous_heavy_metrics_update_period_s>
    <cgroups_memory_usage_observer_wait_time>0</cgroups_memory_usage_observer_wait_time>
    <memory_worker_period_ms>1000</memory_worker_period_ms>
    <config_reload_interval_ms>60000</config_reload_interval_ms>
    <dns_cache_update_period>3600</dns_cache_update_period>
    <send_crash_reports><enabled>false</enabled></send_crash_reports>
</clickhouse>
`))

// usersXML is the one user of an engine that only this machine can reach. The settings are those that exactness rests
// on: a snapshot shared by the parts of one query, and no layer of the engine's own that holds back or drops an insert.
var usersXML = template.Must(template.New("users").Parse(`<clickhouse>
    <!-- Written at every start: changes are lost. Files in users.d beside this one are read too. -->
    <profiles>
        <default>
            <enable_shared_storage_snapshot_in_query>1</enable_shared_storage_snapshot_in_query>
            <async_insert>0</async_insert>
            <insert_deduplicate>0</insert_deduplicate>
            <log_queries>0</log_queries>
            <query_profiler_real_time_period_ns>0</query_profiler_real_time_period_ns>
            <query_profiler_cpu_time_period_ns>0</query_profiler_cpu_time_period_ns>
        </default>
    </profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
    </users>
    <quotas><default/></quotas>
</clickhouse>
`))
