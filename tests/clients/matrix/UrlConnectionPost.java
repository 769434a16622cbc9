// One POST with HttpURLConnection.

import java.net.HttpURLConnection;
import java.net.URI;
import java.util.Objects;

public class UrlConnectionPost {
    public static void main(String[] args) throws Exception {
        var answer = (HttpURLConnection) URI.create(args[0]).toURL().openConnection();
        answer.setRequestMethod("POST");
        answer.setRequestProperty("Content-Type", "application/json");
        answer.setDoOutput(true);
        answer.getOutputStream().write("{\"video\": \"intro.mp4\"}".getBytes());
        var body = new String(answer.getInputStream().readAllBytes());
        System.out.printf(
                "{\"client\": \"HttpURLConnection\", \"status\": %d, \"attempts\": \"%s\", \"stop\": \"%s\", \"key\": \"%s\", \"id\": \"%s\"}%n",
                answer.getResponseCode(),
                Objects.toString(answer.getHeaderField("samekey-attempts"), ""),
                Objects.toString(answer.getHeaderField("samekey-stop"), ""),
                Objects.toString(answer.getHeaderField("idempotency-key"), ""),
                body.replaceAll("(?s).*\"id\": *\"([^\"]*)\".*", "$1"));
    }
}
