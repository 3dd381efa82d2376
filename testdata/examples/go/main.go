// Greeter serves a greeting over HTTP, or prints it once with -once.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"
)

func main() {
	addr := flag.String("addr", ":8080", "address to listen on")
	once := flag.Bool("once", false, "print the greeting and exit")
	flag.Parse()

	started := time.Now()
	if *once {
		fmt.Println(greet(started))
		return
	}
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, greet(started))
	})
	server := &http.Server{Addr: *addr, ReadHeaderTimeout: 5 * time.Second}
	if err := server.ListenAndServe(); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func greet(started time.Time) string {
	return fmt.Sprintf("%s (request %s, up since %s)", greeting, uuid.NewString(), humanize.Time(started))
}
