import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Callable;

/** The HTTP client of the JDK, on which Spring AI and LangChain4j are built: HTTP/2 by default, by an upgrade. */
public class Jdk {
    static String url, model;

    static HttpResponse<String> chat(HttpClient.Version version, String model, String content, boolean stream)
            throws Exception {
        String body = """
            {"model": "%s", "messages": [{"role": "user", "content": "%s"}], "temperature": 0, "max_tokens": 12,
             "stream": %s}""".formatted(model, content, stream);
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/v1/chat/completions"))
            .header("content-type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
        return HttpClient.newBuilder().version(version).build().send(request, HttpResponse.BodyHandlers.ofString());
    }

    static boolean is(HttpClient.Version version, String model, String content, boolean stream, int status, String part)
            throws Exception {
        HttpResponse<String> answer = chat(version, model, content, stream);
        if (answer.statusCode() == status && answer.body().contains(part)) return true;
        throw new Exception(answer.statusCode() + " " + answer.body());
    }

    static void check(String name, Callable<?> call) {
        String why = "";
        try {
            call.call();
        } catch (Exception error) {
            why = error.toString();
        }
        why = why.substring(0, Math.min(300, why.length())).replace("\\", "\\\\").replace("\"", "\\\"");
        System.out.println("{\"check\": \"" + name + "\", \"why\": \"" + why.replace("\n", " ") + "\"}");
    }

    public static void main(String[] words) {
        url = words[0];
        model = words[1];
        System.out.println("{\"version\": \"" + Runtime.version().feature() + "\"}");
        var http2 = HttpClient.Version.HTTP_2;
        String question = "What is a ring buffer?";
        check("create", () -> is(http2, model, question, false, 200, "\"completion_tokens\":12"));
        check("stream", () -> is(http2, model, question, true, 200, "[DONE]"));
        check("unknown model", () -> is(http2, "no", question, false, 404, "model_not_found"));
        check("too long", () -> is(http2, model, "word ".repeat(1500), false, 400, "context_length_exceeded"));
        check("HTTP/1.1", () -> is(HttpClient.Version.HTTP_1_1, model, question, false, 200, "completion_tokens"));
    }
}
