"""One payment intent with Stripe's own SDK, with the one line by which it asks another URL."""

import sys

import stripe
from said import say

client = stripe.StripeClient("sk_test_1", base_addresses={"api": sys.argv[-1]})
intent = client.v1.payment_intents.create({"amount": 1000, "currency": "usd"})
answer = intent.last_response
say("stripe", answer.code, answer.headers, answer.body)
