package courier

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

const (
	// webhookTimeout bounds one request, from the connection to the answer.
	webhookTimeout = 10 * time.Second
	// maxAnswer is how much of an answer is read, to use the connection again.
	maxAnswer = 4 << 10
)

// webhook sends each notice that comes of the audit by a request of its own, signed
// as https://www.standardwebhooks.com has it:
//
//	webhook-id         the notice's
//	webhook-timestamp  when it was sent, Unix seconds
//	webhook-signature  v1,BASE64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY"
type webhook struct {
	sink    tokens.Sink
	secret  []byte
	client  *http.Client
	version string
	now     func() time.Time
	safe    map[int64]int64
}

func newWebhook(k *tokens.Sink, secrets *tokens.SinkSecrets, version string) (*webhook, error) {
	roots, err := authorities(k.CA)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", k.Name, err)
	}
	return &webhook{
		sink: *k, secret: bytes.Clone(secrets.Webhook), client: webhookClient(roots), version: version, now: time.Now, safe: map[int64]int64{},
	}, nil
}

func webhookClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: webhookTimeout,
		// What is signed for one receiver is nobody else's.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout: webhookTimeout, ResponseHeaderTimeout: webhookTimeout,
			MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2: true,
		},
	}
}

// Send implements tokens.Delivery. Records that no notice comes of count as told.
func (w *webhook) Send(ctx context.Context, records []audit.Record) (int, error) {
	for i := range records {
		if n, ok := w.sink.Notice(&records[i]); ok {
			if err := w.post(ctx, n); err != nil {
				return i, err
			}
		}
		w.safe[records[i].Chain] = records[i].Seq
	}
	return len(records), nil
}

// Safe implements tokens.Delivery: what was answered well is the receiver's.
func (w *webhook) Safe() (map[int64]int64, error) { return w.safe, nil }

// post sends one notice. Only an answer of 200 to 299 is a good one.
func (w *webhook) post(ctx context.Context, n tokens.Notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("write a notice: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.sink.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: the URL of sink %s", tokens.ErrInvalid, w.sink.Name)
	}
	at := strconv.FormatInt(w.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "watchword/"+w.version)
	req.Header.Set("webhook-id", n.ID)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", Sign(w.secret, n.ID, at, body))
	resp, err := w.client.Do(req)
	if err != nil {
		var u *url.Error // which names the whole URL; its path may be known to few
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("reach the receiver: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // nothing in it counts
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return nil
	case resp.StatusCode == http.StatusGone:
		return fmt.Errorf("it answered 410 Gone: %w", tokens.ErrSinkGone)
	case resp.StatusCode >= 300 && resp.StatusCode <= 399:
		return fmt.Errorf("the receiver answered %d, and redirects are not followed: give the URL that it leads to", resp.StatusCode)
	}
	return fmt.Errorf("the receiver answered %d", resp.StatusCode)
}

// Sign is the webhook-signature header of a body.
func Sign(secret []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Test implements tokens.Delivery: it sends a notice of type "test".
func (w *webhook) Test(ctx context.Context) error {
	now := w.now().UTC()
	return w.post(ctx, tokens.Notice{
		ID: fmt.Sprintf("msg_%s_test_%d", w.sink.ID, now.UnixNano()), Type: tokens.NoticeTest, Time: now,
		Data: tokens.NoticeData{Action: "sink.test", Outcome: "ok", Detail: []audit.Field{}},
	})
}

// Close implements tokens.Delivery.
func (w *webhook) Close() error {
	clear(w.secret)
	w.client.CloseIdleConnections()
	return nil
}
