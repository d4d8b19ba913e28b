"""The named values of integer attributes, each with the name that FreeRADIUS's dictionary gives it.

Who decides by such a value compares with the enum's member; who shows one asks name_of(). A value that is not here is
legal, since a NAS may know a newer one: it is found as None and shown as its number.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class NamedValue(IntEnum):
    """An integer with a label, as in `START = 1, "Start"`."""

    label: str

    def __new__(cls, value: int, label: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member

    @classmethod
    def find(cls, value: int) -> Self | None:
        found = cls._value2member_map_.get(value)
        return found if isinstance(found, cls) else None

    @classmethod
    def name_of(cls, value: int) -> str:
        """The label of `value`, or its digits when it has none."""
        found = cls.find(value)
        return str(value) if found is None else found.label


class ServiceType(NamedValue):
    """RFC 2865 section 5.6, RFC 3576, RFC 5607."""

    LOGIN_USER = 1, "Login-User"
    FRAMED_USER = 2, "Framed-User"
    CALLBACK_LOGIN_USER = 3, "Callback-Login-User"
    CALLBACK_FRAMED_USER = 4, "Callback-Framed-User"
    OUTBOUND_USER = 5, "Outbound-User"
    ADMINISTRATIVE_USER = 6, "Administrative-User"
    NAS_PROMPT_USER = 7, "NAS-Prompt-User"
    AUTHENTICATE_ONLY = 8, "Authenticate-Only"
    CALLBACK_NAS_PROMPT = 9, "Callback-NAS-Prompt"
    CALL_CHECK = 10, "Call-Check"
    CALLBACK_ADMINISTRATIVE = 11, "Callback-Administrative"
    AUTHORIZE_ONLY = 17, "Authorize-Only"
    FRAMED_MANAGEMENT = 18, "Framed-Management"


class FramedProtocol(NamedValue):
    """RFC 2865 section 5.7."""

    PPP = 1, "PPP"
    SLIP = 2, "SLIP"
    ARAP = 3, "ARAP"
    GANDALF_SLML = 4, "Gandalf-SLML"
    XYLOGICS_IPX_SLIP = 5, "Xylogics-IPX-SLIP"
    X_75_SYNCHRONOUS = 6, "X.75-Synchronous"


class TerminationAction(NamedValue):
    """RFC 2865 section 5.29."""

    DEFAULT = 0, "Default"
    RADIUS_REQUEST = 1, "RADIUS-Request"


class NasPortType(NamedValue):
    """RFC 2865 section 5.41, RFC 3580, RFC 4603."""

    ASYNC = 0, "Async"
    SYNC = 1, "Sync"
    ISDN = 2, "ISDN"
    ISDN_V120 = 3, "ISDN-V120"
    ISDN_V110 = 4, "ISDN-V110"
    VIRTUAL = 5, "Virtual"
    PIAFS = 6, "PIAFS"
    HDLC_CLEAR_CHANNEL = 7, "HDLC-Clear-Channel"
    X_25 = 8, "X.25"
    X_75 = 9, "X.75"
    G_3_FAX = 10, "G.3-Fax"
    SDSL = 11, "SDSL"
    ADSL_CAP = 12, "ADSL-CAP"
    ADSL_DMT = 13, "ADSL-DMT"
    IDSL = 14, "IDSL"
    ETHERNET = 15, "Ethernet"
    XDSL = 16, "xDSL"
    CABLE = 17, "Cable"
    WIRELESS_OTHER = 18, "Wireless-Other"
    WIRELESS_802_11 = 19, "Wireless-802.11"
    TOKEN_RING = 20, "Token-Ring"
    FDDI = 21, "FDDI"
    PPPOA = 30, "PPPoA"
    PPPOEOA = 31, "PPPoEoA"
    PPPOEOE = 32, "PPPoEoE"
    PPPOEOVLAN = 33, "PPPoEoVLAN"
    PPPOEOQINQ = 34, "PPPoEoQinQ"


class AcctStatusType(NamedValue):
    """RFC 2866 section 5.1, RFC 2867 section 3."""

    START = 1, "Start"
    STOP = 2, "Stop"
    INTERIM_UPDATE = 3, "Interim-Update"
    ACCOUNTING_ON = 7, "Accounting-On"
    ACCOUNTING_OFF = 8, "Accounting-Off"
    TUNNEL_START = 9, "Tunnel-Start"
    TUNNEL_STOP = 10, "Tunnel-Stop"
    TUNNEL_REJECT = 11, "Tunnel-Reject"
    TUNNEL_LINK_START = 12, "Tunnel-Link-Start"
    TUNNEL_LINK_STOP = 13, "Tunnel-Link-Stop"
    TUNNEL_LINK_REJECT = 14, "Tunnel-Link-Reject"
    FAILED = 15, "Failed"


class AcctAuthentic(NamedValue):
    """RFC 2866 section 5.6."""

    RADIUS = 1, "RADIUS"
    LOCAL = 2, "Local"
    REMOTE = 3, "Remote"
    DIAMETER = 4, "Diameter"


class AcctTerminateCause(NamedValue):
    """RFC 2866 section 5.10, RFC 3580."""

    USER_REQUEST = 1, "User-Request"
    LOST_CARRIER = 2, "Lost-Carrier"
    LOST_SERVICE = 3, "Lost-Service"
    IDLE_TIMEOUT = 4, "Idle-Timeout"
    SESSION_TIMEOUT = 5, "Session-Timeout"
    ADMIN_RESET = 6, "Admin-Reset"
    ADMIN_REBOOT = 7, "Admin-Reboot"
    PORT_ERROR = 8, "Port-Error"
    NAS_ERROR = 9, "NAS-Error"
    NAS_REQUEST = 10, "NAS-Request"
    NAS_REBOOT = 11, "NAS-Reboot"
    PORT_UNNEEDED = 12, "Port-Unneeded"
    PORT_PREEMPTED = 13, "Port-Preempted"
    PORT_SUSPENDED = 14, "Port-Suspended"
    SERVICE_UNAVAILABLE = 15, "Service-Unavailable"
    CALLBACK = 16, "Callback"
    USER_ERROR = 17, "User-Error"
    HOST_REQUEST = 18, "Host-Request"
    SUPPLICANT_RESTART = 19, "Supplicant-Restart"
    REAUTHENTICATION_FAILURE = 20, "Reauthentication-Failure"
    PORT_REINIT = 21, "Port-Reinit"
    PORT_DISABLED = 22, "Port-Disabled"


class TunnelType(NamedValue):
    """RFC 2868 section 3.1, RFC 3580."""

    PPTP = 1, "PPTP"
    L2F = 2, "L2F"
    L2TP = 3, "L2TP"
    ATMP = 4, "ATMP"
    VTP = 5, "VTP"
    AH = 6, "AH"
    IP = 7, "IP"
    MIN_IP = 8, "MIN-IP"
    ESP = 9, "ESP"
    GRE = 10, "GRE"
    DVS = 11, "DVS"
    IP_IN_IP = 12, "IP-in-IP"
    VLAN = 13, "VLAN"


class TunnelMediumType(NamedValue):
    """RFC 2868 section 3.2."""

    IPV4 = 1, "IPv4"
    IPV6 = 2, "IPv6"
    NSAP = 3, "NSAP"
    HDLC = 4, "HDLC"
    BBN_1822 = 5, "BBN-1822"
    IEEE_802 = 6, "IEEE-802"
    E_163 = 7, "E.163"
    E_164 = 8, "E.164"
    F_69 = 9, "F.69"
    X_121 = 10, "X.121"
    IPX = 11, "IPX"
    APPLETALK = 12, "Appletalk"
    DECNET_IV = 13, "DecNet-IV"
    BANYAN_VINES = 14, "Banyan-Vines"
    E_164_NSAP = 15, "E.164-NSAP"


class ErrorCause(NamedValue):
    """RFC 5176 section 3.5."""

    RESIDUAL_CONTEXT_REMOVED = 201, "Residual-Context-Removed"
    INVALID_EAP_PACKET = 202, "Invalid-EAP-Packet"
    UNSUPPORTED_ATTRIBUTE = 401, "Unsupported-Attribute"
    MISSING_ATTRIBUTE = 402, "Missing-Attribute"
    NAS_IDENTIFICATION_MISMATCH = 403, "NAS-Identification-Mismatch"
    INVALID_REQUEST = 404, "Invalid-Request"
    UNSUPPORTED_SERVICE = 405, "Unsupported-Service"
    UNSUPPORTED_EXTENSION = 406, "Unsupported-Extension"
    INVALID_ATTRIBUTE_VALUE = 407, "Invalid-Attribute-Value"
    ADMINISTRATIVELY_PROHIBITED = 501, "Administratively-Prohibited"
    PROXY_REQUEST_NOT_ROUTABLE = 502, "Proxy-Request-Not-Routable"
    SESSION_CONTEXT_NOT_FOUND = 503, "Session-Context-Not-Found"
    SESSION_CONTEXT_NOT_REMOVABLE = 504, "Session-Context-Not-Removable"
    PROXY_PROCESSING_ERROR = 505, "Proxy-Processing-Error"
    RESOURCES_UNAVAILABLE = 506, "Resources-Unavailable"
    REQUEST_INITIATED = 507, "Request-Initiated"
    MULTIPLE_SESSION_SELECTION_UNSUPPORTED = 508, "Multiple-Session-Selection-Unsupported"
