// gorilla/websocket: what a client sends goes to all, one queue and one writing goroutine for each, as in its chat
// example; a message is framed once for all (PreparedMessage).
package main

import (
    "log"
    "net/http"
    "os"
    "sync"

    "github.com/gorilla/websocket"
)

const queueLength = 256

type client struct {
    conn  *websocket.Conn
    queue chan *websocket.PreparedMessage
}

var (
    upgrader = websocket.Upgrader{}
    mutex    sync.Mutex
    clients  = map[*client]bool{}
)

// Called with the mutex held.
func drop(c *client) {
    if clients[c] {
        delete(clients, c)
        close(c.queue)
    }
}

func broadcast(kind int, data []byte) {
    message, err := websocket.NewPreparedMessage(kind, data)
    if err != nil {
        return
    }
    mutex.Lock()
    defer mutex.Unlock()
    for c := range clients {
        select {
        case c.queue <- message:
        default: // too slow
            drop(c)
        }
    }
}

func (c *client) write() {
    defer c.conn.Close()
    for message := range c.queue {
        if c.conn.WritePreparedMessage(message) != nil {
            return
        }
    }
}

func serve(w http.ResponseWriter, r *http.Request) {
    conn, err := upgrader.Upgrade(w, r, nil)
    if err != nil {
        return
    }
    c := &client{conn, make(chan *websocket.PreparedMessage, queueLength)}
    mutex.Lock()
    clients[c] = true
    mutex.Unlock()
    go c.write()
    for {
        kind, data, err := conn.ReadMessage()
        if err != nil {
            break
        }
        broadcast(kind, data)
    }
    mutex.Lock()
    drop(c)
    mutex.Unlock()
}

func main() {
    http.HandleFunc("/", serve)
    log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
