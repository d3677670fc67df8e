import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** A small service that keeps documents in memory and counts words in them. */
public class Service {
    private static final int DOCUMENTS = 20_000;

    private static String document(int number) {
        StringBuilder text = new StringBuilder();
        for (int word = 0; word < 600; word++) {
            text.append("w").append((number * 31 + word * 7) % 1009).append(' ');
        }
        return text.toString();
    }

    private static long count(List<String> documents, String word) {
        long found = 0;
        for (String text : documents) {
            for (int at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
                found++;
            }
        }
        return found;
    }

    public static void main(String[] args) throws Exception {
        List<String> documents = new ArrayList<>();
        for (int number = 0; number < DOCUMENTS; number++) {
            documents.add(document(number));
        }
        InetSocketAddress anyPort = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        HttpServer server = HttpServer.create(anyPort, 0);
        server.createContext("/count/", exchange -> {
            String word = exchange.getRequestURI().getPath().substring("/count/".length());
            byte[] answer = (count(documents, word + " ") + "\n").getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        System.out.println("listening on " + server.getAddress().getPort());
    }
}
