// What a program of this folder saw, as one line of JSON.

export const order = JSON.stringify({ video: "intro.mp4" });

// `field` gives a field of the answer's head by its name in lower case.
export const say = (client, status, field, body) =>
  console.log(
    JSON.stringify({
      client,
      status,
      attempts: field("samekey-attempts") ?? "",
      stop: field("samekey-stop") ?? "",
      id: body?.id ?? "",
      key: field("idempotency-key") ?? "",
    }),
  );
