"""A refused preflight: an error like every other, which offers only methods that routes have."""

from fastapi.testclient import TestClient

REFUSED = {
    "Disallowed CORS origin": ("https://evil.example", "POST"),
    "Disallowed CORS method": ("http://localhost:3000", "QUERY"),
}


def test_refused_preflight_is_a_json_error(client: TestClient) -> None:
    for reason, (origin, method) in REFUSED.items():
        headers = {"Origin": origin, "Access-Control-Request-Method": method}
        response = client.options("/movies", headers=headers)

        assert response.status_code == 400
        assert response.headers["Content-Type"] == "application/json"
        assert response.json() == {"detail": reason}
        assert "QUERY" not in response.headers["Access-Control-Allow-Methods"]
