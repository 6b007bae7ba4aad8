#include "worker/proto/handshake.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

#include "worker/proto/origin.h"

#define HANDSHAKE_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

enum {
    HANDSHAKE_GUID_BYTES = sizeof(HANDSHAKE_GUID) - 1,
};

const char *
handshake_origin_name(enum handshake_origin origin)
{
    switch (origin) {
    case HANDSHAKE_ORIGIN_SAME: return "same";
    case HANDSHAKE_ORIGIN_ANY: return "any";
    case HANDSHAKE_ORIGIN_LIST: return "list";
    }
    return "unknown";
}

static bool
handshake_refuse(struct handshake_verdict *v, enum refusal cause, int status, const char *sentence)
{
    v->cause = cause;
    v->status = status;
    v->sentence = sentence;
    return false;
}

static bool
handshake_is_method(const struct http1_request *req, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (http1_is_method(req, names[i]))
            return true;
    return false;
}

/* RFC 9110 section 9.1: 405 for a method that is known, 501 for one that is not. */
static bool
handshake_check_method(const struct http1_request *req, struct handshake_verdict *v)
{
    static const char *const allowed[] = {"GET", "HEAD", "OPTIONS"};
    static const char *const known[] = {"POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"};

    if (!handshake_is_method(req, allowed, sizeof(allowed) / sizeof(allowed[0])))
        return handshake_is_method(req, known, sizeof(known) / sizeof(known[0]))
                   ? handshake_refuse(v, REFUSAL_METHOD, 405, "A WebSocket is opened with GET.")
                   : handshake_refuse(v, REFUSAL_METHOD, 501,
                                      "This server knows the methods " RESPONSE_ALLOW " only.");
    if (req->has_body)
        return handshake_refuse(v, REFUSAL_METHOD, 413,
                                "A request with a body is not accepted here.");
    return true;
}

bool
handshake_is_meant(const struct http1_request *req)
{
    return http1_header_find(req, "Sec-WebSocket-Key") ||
           http1_header_find(req, "Sec-WebSocket-Version") ||
           http1_header_has_token(req, "Upgrade", "websocket");
}

/* RFC 9110 section 7.8: Upgrade has no meaning in HTTP/1.0. */
static bool
handshake_is_upgrade(const struct http1_request *req)
{
    return http1_is_method(req, "GET") && !req->is_http10 &&
           http1_header_has_token(req, "Upgrade", "websocket") &&
           http1_header_has_token(req, "Connection", "Upgrade");
}

/* Is it a request for a WebSocket at all? */
static bool
handshake_check_upgrade(const struct http1_request *req, struct handshake_verdict *v)
{
    if (handshake_is_upgrade(req))
        return true;
    if (!handshake_is_meant(req) || !http1_is_method(req, "GET"))
        return handshake_refuse(v, REFUSAL_PLAIN, 426,
                                "This is a WebSocket server: connect with a WebSocket client, "
                                "in a browser with new WebSocket(\"ws://HOST:PORT/\").");
    if (req->is_http10)
        return handshake_refuse(
            v, REFUSAL_PROXY, 426,
            "A WebSocket needs HTTP/1.1, and this is HTTP/1.0: a proxy in front "
            "must use 1.1 (nginx: proxy_http_version 1.1).");
    return handshake_refuse(v, REFUSAL_PROXY, 426,
                            "Upgrade: websocket or Connection: Upgrade is missing: a proxy in "
                            "front must pass them on (nginx: proxy_set_header Upgrade "
                            "$http_upgrade; proxy_set_header Connection upgrade).");
}

static bool
handshake_check_version(const struct http1_request *req, struct handshake_verdict *v)
{
    const struct http1_header *version = http1_header_find(req, "Sec-WebSocket-Version");

    if (!version)
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "The Sec-WebSocket-Version header is missing.");
    if (http1_header_repeated(req, "Sec-WebSocket-Version"))
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "There is more than one Sec-WebSocket-Version header.");
    if (!http1_slice_equal(version->value, http1_slice_of("13")))
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 426,
                                "This server speaks version 13 of the WebSocket protocol.");
    return true;
}

static bool
handshake_is_base64(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

/* Base64 of 16 bytes. The four bits that the last digit has too many may be anything: nothing
 * depends on them, and there are clients that do not clear them. */
static bool
handshake_key_valid(struct http1_slice key)
{
    size_t digits = HANDSHAKE_KEY_BYTES - 2;

    if (key.bytes != HANDSHAKE_KEY_BYTES || key.at[digits] != '=' || key.at[digits + 1] != '=')
        return false;
    for (size_t i = 0; i < digits; i++)
        if (!handshake_is_base64(key.at[i]))
            return false;
    return true;
}

static bool
handshake_check_key(const struct http1_request *req, struct handshake_verdict *v)
{
    const struct http1_header *key = http1_header_find(req, "Sec-WebSocket-Key");

    if (!key)
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "The Sec-WebSocket-Key header is missing.");
    if (http1_header_repeated(req, "Sec-WebSocket-Key"))
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "There is more than one Sec-WebSocket-Key header.");
    if (!handshake_key_valid(key->value))
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "The Sec-WebSocket-Key header is not 16 bytes in base64.");
    return true;
}

static bool
handshake_origin_allowed(struct http1_slice origin, struct http1_slice own,
                         const struct handshake_policy *policy)
{
    switch (policy->origin) {
    case HANDSHAKE_ORIGIN_SAME: return origin_is_of_host(origin, own);
    case HANDSHAKE_ORIGIN_ANY: return true;
    case HANDSHAKE_ORIGIN_LIST: return origin_is_listed(origin, policy->origin_list);
    }
    return false;
}

static bool
handshake_check_origin(const struct http1_request *req, const struct handshake_policy *policy,
                       struct handshake_verdict *v)
{
    const struct http1_header *origin = http1_header_find(req, "Origin");

    if (!origin)
        return true;
    if (http1_header_repeated(req, "Origin"))
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400, "There is more than one Origin header.");
    if (!handshake_origin_allowed(origin->value, req->host, policy))
        return handshake_refuse(v, REFUSAL_ORIGIN, 403,
                                "Pages of this origin may not connect; the server's option "
                                "--origin says which may.");
    return true;
}

/* RFC 6455 sections 4.2.1 and 9.1: a malformed header fails the handshake, used or not. */
static bool
handshake_check_extensions(const struct http1_request *req, const struct handshake_policy *policy,
                           struct handshake_verdict *v)
{
    if (!extension_negotiate(req, &v->deflate))
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "The Sec-WebSocket-Extensions header is malformed.");
    if (!policy->deflate)
        v->deflate = (struct extension_deflate){.agreed = false};
    return true;
}

/* RFC 6455 section 4.1, number 10, says what a client may send. */
static bool
handshake_check_subprotocol(const struct http1_request *req, const struct handshake_policy *policy,
                            struct handshake_verdict *v)
{
    switch (subprotocol_choose(req, policy->subprotocols, &v->subprotocol)) {
    case SUBPROTOCOL_OK: return true;
    case SUBPROTOCOL_MALFORMED:
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "The Sec-WebSocket-Protocol header is not a list of tokens.");
    case SUBPROTOCOL_REPEATED:
        return handshake_refuse(v, REFUSAL_HANDSHAKE, 400,
                                "The Sec-WebSocket-Protocol header has a name twice.");
    case SUBPROTOCOL_TOO_MANY: break;
    }
    return handshake_refuse(v, REFUSAL_HANDSHAKE, 431,
                            "The Sec-WebSocket-Protocol header has more than 64 names.");
}

/* One for the life of the process: SHA1() looks the algorithm up and makes a context each time,
 * which takes longer than the digest does. */
static EVP_MD_CTX *
handshake_sha1(void)
{
    static EVP_MD_CTX *context;
    EVP_MD *sha1 = context ? NULL : EVP_MD_fetch(NULL, "SHA1", NULL);

    if (sha1)
        context = EVP_MD_CTX_new();
    if (context && !EVP_DigestInit_ex2(context, sha1, NULL)) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    EVP_MD_free(sha1); /* the context has its own reference */
    return context;
}

bool
handshake_accept_of(const char key[HANDSHAKE_KEY_BYTES], char accept[HANDSHAKE_ACCEPT_BYTES + 1])
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    EVP_MD_CTX *sha1 = handshake_sha1();

    if (!sha1 || !EVP_DigestUpdate(sha1, key, HANDSHAKE_KEY_BYTES) ||
        !EVP_DigestUpdate(sha1, HANDSHAKE_GUID, HANDSHAKE_GUID_BYTES) ||
        !EVP_DigestFinal_ex(sha1, digest, NULL))
        return false;
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof(digest));
    return true;
}

bool
handshake_ready(void)
{
    char accept[HANDSHAKE_ACCEPT_BYTES + 1];

    return handshake_accept_of("dGhlIHNhbXBsZSBub25jZQ==", accept) &&
           strcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == 0;
}

static bool
handshake_accept(const struct http1_request *req, struct handshake_verdict *v)
{
    const struct http1_header *key = http1_header_find(req, "Sec-WebSocket-Key");

    if (!handshake_accept_of(key->value.at, v->accept))
        return handshake_refuse(v, REFUSAL_BUSY, 500,
                                "The server cannot compute Sec-WebSocket-Accept.");
    return true;
}

void
handshake_check(const struct http1_request *req, const struct handshake_policy *policy,
                struct handshake_verdict *v)
{
    *v = (struct handshake_verdict){0};
    if (handshake_check_method(req, v) && handshake_check_upgrade(req, v) &&
        handshake_check_version(req, v) && handshake_check_key(req, v) &&
        handshake_check_extensions(req, policy, v) && handshake_check_subprotocol(req, policy, v) &&
        handshake_check_origin(req, policy, v) && handshake_accept(req, v))
        v->status = 101;
}

/* Without snprintf, which takes as long as reading the request does. */
size_t
handshake_answer_101(const struct handshake_verdict *v, char *out, size_t out_bytes)
{
    static const char head[] = "HTTP/1.1 101 Switching Protocols\r\n"
                               "Upgrade: websocket\r\n"
                               "Connection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: ";
    static const char subprotocol_head[] = "\r\nSec-WebSocket-Protocol: ";
    static const char extensions_head[] = "\r\nSec-WebSocket-Extensions: ";
    char extensions[EXTENSION_ANSWER_MAX_BYTES];
    size_t extensions_bytes = extension_answer(&v->deflate, extensions, sizeof(extensions));
    const struct http1_slice parts[] = {
        {head, sizeof(head) - 1},
        {v->accept, HANDSHAKE_ACCEPT_BYTES},
        {subprotocol_head, v->subprotocol.bytes ? sizeof(subprotocol_head) - 1 : 0},
        v->subprotocol,
        {extensions_head, extensions_bytes ? sizeof(extensions_head) - 1 : 0},
        {extensions, extensions_bytes},
        {"\r\n\r\n", 4},
    };
    size_t used = 0;

    assert(v->status == 101);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].bytes > out_bytes - used)
            return 0;
        if (parts[i].bytes)
            memcpy(out + used, parts[i].at, parts[i].bytes);
        used += parts[i].bytes;
    }
    return used;
}
