// A client made with java.net.http, driven by a test: README.md beside it has the orders and events.
//
//   java JavaClient URL deflate=0|1 [protocols=NAME,NAME]

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;

public class JavaClient implements WebSocket.Listener {
    private final StringBuilder text = new StringBuilder();
    private final ByteArrayOutputStream binary = new ByteArrayOutputStream();

    private static synchronized void say(String... words) {
        System.out.println(String.join(" ", words));
        System.out.flush();
    }

    private static String hex(byte[] content) {
        return HexFormat.of().formatHex(content);
    }

    private static String hex(String content) {
        return hex(content.getBytes(StandardCharsets.UTF_8));
    }

    private static byte[] bytes(ByteBuffer buffer) {
        byte[] content = new byte[buffer.remaining()];
        buffer.get(content);
        return content;
    }

    private static String string(String word) {
        return new String(HexFormat.of().parseHex(word), StandardCharsets.UTF_8);
    }

    @Override
    public void onOpen(WebSocket client) {
        say("open", "", hex(client.getSubprotocol()));
        client.request(1);
    }

    @Override
    public CompletionStage<?> onText(WebSocket client, CharSequence data, boolean last) {
        text.append(data);
        if (last) {
            say("message", "text", hex(text.toString()));
            text.setLength(0);
        }
        client.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onBinary(WebSocket client, ByteBuffer data, boolean last) {
        binary.writeBytes(bytes(data));
        if (last) {
            say("message", "binary", hex(binary.toByteArray()));
            binary.reset();
        }
        client.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onPong(WebSocket client, ByteBuffer payload) {
        say("pong", hex(bytes(payload)));
        client.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket client, int code, String reason) {
        say("close", Integer.toString(code), hex(reason));
        return null;
    }

    @Override
    public void onError(WebSocket client, Throwable error) {
        say("failed", hex(error.toString()));
    }

    private static void obey(WebSocket client, String[] words) {
        if (words[0].equals("close")) {
            client.sendClose(Integer.parseInt(words[1]), string(words[2])).join();
        } else if (words[0].equals("ping")) {
            client.sendPing(ByteBuffer.wrap(HexFormat.of().parseHex(words[1]))).join();
        } else {
            for (int i = 2; i < words.length; i++) {
                boolean last = i == words.length - 1;
                if (words[1].equals("text"))
                    client.sendText(string(words[i]), last).join();
                else
                    client.sendBinary(ByteBuffer.wrap(HexFormat.of().parseHex(words[i])), last).join();
            }
        }
    }

    private static WebSocket open(String[] words) {
        WebSocket.Builder builder = HttpClient.newHttpClient().newWebSocketBuilder();
        for (String word : Arrays.copyOfRange(words, 1, words.length)) {
            String[] option = word.split("=", 2);
            String[] names = option[1].split(",");
            if (option[0].equals("protocols"))
                builder.subprotocols(names[0], Arrays.copyOfRange(names, 1, names.length));
            else if (option[1].equals("1"))
                builder.header("Sec-WebSocket-Extensions", "permessage-deflate");
        }
        return builder.buildAsync(URI.create(words[0]), new JavaClient()).join();
    }

    public static void main(String[] words) throws Exception {
        try {
            WebSocket client = open(words);
            BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
            for (String line; (line = orders.readLine()) != null;)
                obey(client, line.split(" ", -1));
        } catch (CompletionException error) {
            if (error.getCause() instanceof WebSocketHandshakeException refusal
                    && refusal.getResponse().statusCode() != 101)
                say("refused", Integer.toString(refusal.getResponse().statusCode()));
            else
                say("failed", hex(error.getCause().toString()));
        } catch (IllegalArgumentException error) {
            say("unable", hex(error.toString()));
        }
        System.exit(0);
    }
}
