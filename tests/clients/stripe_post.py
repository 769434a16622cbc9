"""One payment intent with Stripe's own SDK; the URL is that of the API, without `/v1`."""

import json
import os
import sys

import stripe

url = next(arg for arg in sys.argv[1:] if not arg.startswith("-"))
# Stripe's SDK brings roots of its own and reads no variable: this line is what a program has to add.
stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
client = stripe.StripeClient("sk_test_1", base_addresses={"api": url})
intent = client.v1.payment_intents.create({"amount": 1000, "currency": "usd"})
answer = intent.last_response

print(json.dumps({
    "client": "stripe",
    "status": answer.code,
    "attempts": answer.headers.get("Samekey-Attempts", ""),
    "stop": answer.headers.get("Samekey-Stop", ""),
    "id": intent.id,
    "key": answer.headers.get("Idempotency-Key", ""),
}))
