package keyring

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"joinery"
)

// webhookDomain stands in front of what a webhook's secret is a MAC of, so that
// it is never an owner token's; see ownerTokenDomain.
const webhookDomain = "joinery webhook secret 1\x00"

// The two forms of Standard Webhooks in which these leave the keyring.
const (
	webhookSecretPrefix    = "whsec_"
	webhookSignaturePrefix = "v1,"
)

// WebhookSecret gives the secret with which deliveries to a webhook are signed,
// for whoever receives them: "whsec_" and base64 of 32 bytes, HMAC-SHA-256 under
// the owner-token key over domain ‖ id 8 ‖ generation 4 (big-endian). It is
// shown once, where the webhook gets it, and is nowhere at rest.
func (k *Keyring) WebhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) (secret string, err error) {
	err = k.run(ctx, func() error {
		mac, err := k.webhookSecret(ctx, id, generation)
		if err != nil {
			return err
		}
		defer clear(mac[:])
		secret = webhookSecretPrefix + base64.StdEncoding.EncodeToString(mac[:])
		return nil
	})
	return secret, err
}

// SignWebhook gives the signature of content under that secret: "v1," and base64
// of HMAC-SHA-256. It computes nothing but that, over any content: what it signs
// is worth something to the receiver of one webhook only.
func (k *Keyring) SignWebhook(ctx context.Context, id joinery.WebhookID, generation uint32, content []byte) (signature string, err error) {
	err = k.run(ctx, func() error {
		key, err := k.webhookSecret(ctx, id, generation)
		if err != nil {
			return err
		}
		defer clear(key[:])
		h := hmac.New(sha256.New, key[:])
		h.Write(content)
		signature = webhookSignaturePrefix + base64.StdEncoding.EncodeToString(h.Sum(nil))
		return nil
	})
	return signature, err
}

func (k *Keyring) webhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) ([sha256.Size]byte, error) {
	msg := make([]byte, 0, len(webhookDomain)+8+4)
	msg = append(msg, webhookDomain...)
	msg = binary.BigEndian.AppendUint64(msg, uint64(id))
	msg = binary.BigEndian.AppendUint32(msg, generation)
	return k.token.MAC(ctx, OwnerTokens, msg)
}
