package enginetest

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestClickHouseAnswers(t *testing.T) {
	c := ClickHouse(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + c.HTTPAddr() + "/?query=SELECT+version()")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(got), "2") {
		t.Errorf("version() = %q", got)
	}
}

func TestNATSAnswers(t *testing.T) {
	if url := NATS(t).URL(); !strings.HasPrefix(url, "nats://127.0.0.1:") {
		t.Errorf("URL() = %q", url)
	}
}
