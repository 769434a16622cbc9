// One POST with the HttpClient that Java brings along.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class HttpClientPost {
    public static void main(String[] args) throws Exception {
        var order = HttpRequest.newBuilder(URI.create(args[0]))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\"video\": \"intro.mp4\"}"))
                .build();
        var answer = HttpClient.newHttpClient().send(order, HttpResponse.BodyHandlers.ofString());
        var head = answer.headers();
        System.out.printf(
                "{\"client\": \"HttpClient\", \"status\": %d, \"attempts\": \"%s\", \"stop\": \"%s\", \"key\": \"%s\", \"id\": \"%s\"}%n",
                answer.statusCode(),
                head.firstValue("samekey-attempts").orElse(""),
                head.firstValue("samekey-stop").orElse(""),
                head.firstValue("idempotency-key").orElse(""),
                answer.body().replaceAll("(?s).*\"id\": *\"([^\"]*)\".*", "$1"));
    }
}
