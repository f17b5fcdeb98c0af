// Confines the 2,000 queries of benches/queries.txt with the enforcement library of prom-label-proxy and prints the
// processor's nanoseconds: for all of them once, and for the longest one.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus-community/prom-label-proxy/injectproxy"
	"github.com/prometheus/prometheus/model/labels"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	times, err := strconv.Atoi(os.Args[2])
	check(err)
	queries := strings.Split(strings.TrimSpace(string(text)), "\n")
	longest := ""
	for _, query := range queries {
		if len(query) > len(longest) {
			longest = query
		}
	}
	confine(queries, 1)
	began := nanoseconds()
	confine(queries, times)
	between := nanoseconds()
	confine([]string{longest}, times*100)
	ended := nanoseconds()
	fmt.Println((between-began)/int64(times), (ended-between)/(int64(times)*100))
}

// As its handlers do for several values: one regular expression, and an enforcer for each request.
func confine(queries []string, times int) {
	for range times {
		for _, query := range queries {
			matcher, err := labels.NewMatcher(labels.MatchRegexp, "namespace", "team-a|team-b")
			check(err)
			confined, err := injectproxy.NewPromQLEnforcer(false, matcher).Enforce(query)
			check(err)
			kept = confined
		}
	}
}

var kept string

// nanoseconds of the processor that this process has had, its garbage collector included.
func nanoseconds() int64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
