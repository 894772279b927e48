// Requests of Java's HttpClient, with a form written by hand as its users write it. Arguments: the server's URL, the file
// of an image. Prints for each request its name, its status and the SHA-256 of its body.

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.HexFormat;

class Client {
    static final String POINTS = "[[10, 20], [30.5, 40]]";
    static final String BOUNDARY = "----=_Part_0_1234.5678";

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        byte[] image = Files.readAllBytes(Path.of(arguments[1]));
        String raw = url + "/features?side=128&layer=res5&format=npy&points="
            + URLEncoder.encode(POINTS, StandardCharsets.UTF_8);
        String fields = ", \"points\": " + POINTS + ", \"side\": 128, \"layer\": \"res5\", \"format\": \"npy\"}";
        for (HttpClient.Version version : HttpClient.Version.values()) {
            // HTTP_2 asks for an upgrade from HTTP/1.1, which the server need not grant.
            HttpClient client = HttpClient.newBuilder().version(version).build();
            send(client, version + " form", request(url + "/features")
                .header("Content-Type", "multipart/form-data; boundary=" + BOUNDARY)
                .POST(BodyPublishers.ofByteArray(form(image))));
            send(client, version + " bytes", request(raw).POST(BodyPublishers.ofByteArray(image)));
            send(client, version + " type", request(raw).header("Content-Type", "image/pjpeg")
                .POST(BodyPublishers.ofByteArray(image)));
            String lines = Base64.getMimeEncoder().encodeToString(image).replace("\r\n", "\\r\\n");
            send(client, version + " lines", request(url + "/features").header("Content-Type", "application/json")
                .POST(BodyPublishers.ofString("{\"images\": [\"" + lines + "\"]" + fields)));
        }
    }

    static HttpRequest.Builder request(String url) {
        return HttpRequest.newBuilder(URI.create(url));
    }

    static byte[] form(byte[] image) throws IOException {
        ByteArrayOutputStream form = new ByteArrayOutputStream();
        part(form, "form-data; filename=\"points.json\"; name=\"points\"", "application/json", POINTS.getBytes());
        part(form, "form-data; name=side", "text/plain; charset=UTF-8", "128".getBytes());
        part(form, "form-data; name=\"layer\"", "text/plain; charset=UTF-8", "res5".getBytes());
        part(form, "form-data; name=\"format\"", "text/plain; charset=UTF-8", "npy".getBytes());
        part(form, "form-data; name=\"image\"; filename=\"C:\\photos\\a.jpg\"", "image/jpg", image);
        form.write(("--" + BOUNDARY + "--\r\n").getBytes());
        return form.toByteArray();
    }

    static void part(ByteArrayOutputStream form, String disposition, String type, byte[] content) throws IOException {
        form.write(("--" + BOUNDARY + "\r\ncontent-disposition: " + disposition + "\r\ncontent-type: " + type
            + "\r\nContent-Transfer-Encoding: binary\r\n\r\n").getBytes());
        form.write(content);
        form.write("\r\n".getBytes());
    }

    static void send(HttpClient client, String name, HttpRequest.Builder request) throws Exception {
        var reply = client.send(request.build(), BodyHandlers.ofByteArray());
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(reply.body());
        System.out.println(name + "\t" + reply.statusCode() + "\t" + HexFormat.of().formatHex(digest));
    }
}
