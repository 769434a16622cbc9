// One POST with Go's net/http.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	order := strings.NewReader(`{"video": "intro.mp4"}`)
	answer, err := http.Post(os.Args[1], "application/json", order)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	var made struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&made); err != nil {
		log.Fatal(err)
	}
	said := json.NewEncoder(os.Stdout)
	said.Encode(map[string]any{
		"client":   "net/http",
		"status":   answer.StatusCode,
		"attempts": answer.Header.Get("Samekey-Attempts"),
		"stop":     answer.Header.Get("Samekey-Stop"),
		"id":       made.ID,
		"key":      answer.Header.Get("Idempotency-Key"),
	})
}
